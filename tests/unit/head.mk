# tests/unit/head.mk: tests of volumes/head run a whole volume set on a simulated machine.

HEAD_TESTS := $(patsubst %,$(BUILD)/tests/unit/test_%,volume volume_barrier volume_set volume_resize placement disk_space snapshots)

$(HEAD_TESTS): $(BUILD)/tests/unit/head_world.o
