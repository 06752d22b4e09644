# tests/unit/metadata.mk: the rules of a metadata store are tried on each of the three.

$(BUILD)/tests/unit/test_metadata $(BUILD)/tests/unit/test_metadata_etcd: $(BUILD)/tests/unit/metadata_rules.o
