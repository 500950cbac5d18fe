"""The index in Milvus, where one machine is not enough (docs/decisions/0019-milvus.md)."""
