"""Ways to receivers: webhooks, files, SFTP, Kafka topics."""
