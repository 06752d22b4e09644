# tests/unit/vhost.mk: tests of the vhost-user frontend run over volumes in memory, with a VMM in the simulated world. Its
# rings are those of tests/vhost.

VHOST_WORLD := $(BUILD)/tests/unit/fake_volume.o $(BUILD)/tests/unit/vhost_world.o $(BUILD)/tests/vhost/vhost_ring.o
VHOST_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_vhost_*.c))
VHOST_TESTS := $(filter-out %/test_vhost_client,$(VHOST_TESTS))

$(VHOST_TESTS) $(BUILD)/tests/fuzz/fuzz_vhost_messages: $(VHOST_WORLD)
