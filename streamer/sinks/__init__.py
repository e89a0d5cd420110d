"""Where results and dead letters go: Kafka, or a list in memory."""
