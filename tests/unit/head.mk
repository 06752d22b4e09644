# tests/unit/head.mk: tests of volumes/head run a whole volume set on a simulated machine.

HEAD_TESTS := $(patsubst %,$(BUILD)/tests/unit/test_%,volume volume_set set_disks placement disk_space disk_recovery snapshots rollback exports scrub disk_requests deleted fill ahead set_nodes remote_copies remote_doubt measure copies damage compare resync reconcile moves move_steps replicas waiting doubt older node_drain balance)

$(HEAD_TESTS): $(BUILD)/tests/unit/head_world.o

COPIES_TESTS := $(patsubst %,$(BUILD)/tests/unit/test_%,copies damage compare resync reconcile doubt older)

$(COPIES_TESTS): $(BUILD)/tests/unit/copies_world.o

MOVES_TESTS := $(patsubst %,$(BUILD)/tests/unit/test_%,moves move_steps replicas)

$(MOVES_TESTS): $(BUILD)/tests/unit/moves_world.o
