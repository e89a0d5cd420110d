"""`streamer bench`: how fast a model is here, alone and from Kafka to Kafka, and what else would do.

turns.py      cases take turns over the same texts; medians; a case that loses a text has no figure
alone.py      the model without Kafka: streamer's batches, and fixed ones as they come
pipeline.py   the Hugging Face pipeline, one by one and in fixed batches
line.py       from Kafka to Kafka: the worker as users run it, throughput and latency
arithmetic.py operations a token, and what the device does in a plain multiplication
report.py     all of it as one value, for JSON and for the table; plot.py draws it
capacity.py   `streamer plan`: from measured figures to workers and partitions
"""
