"""A real local stack without containers: Kafka, Valkey and Prism as processes of one folder."""
