"""Where records come from: Kafka, or a list in memory."""
