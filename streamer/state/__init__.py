"""What is remembered between records: claims and the index of dead letters, in Redis or in memory."""
