# tests/unit/control.mk: the control API is tested over a volume set of names only.

$(BUILD)/tests/unit/test_control $(BUILD)/tests/unit/test_forward: $(BUILD)/tests/unit/fake_volume_set.o
