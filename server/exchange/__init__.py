"""The public port: gRPC service, relay to Flower, documents."""
