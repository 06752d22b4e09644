# tests/unit/nbd.mk: tests of the NBD frontend run over volumes in memory instead of the real head.

NBD_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_nbd*.c))

$(NBD_TESTS) $(BUILD)/tests/fuzz/fuzz_nbd: $(BUILD)/tests/unit/fake_volume.o $(BUILD)/tests/unit/nbd_world.o

$(BUILD)/tests/unit/fake_nbd_server: $(BUILD)/tests/unit/fake_nbd_server.o $(BUILD)/tests/unit/fake_volume.o \
                                     $(BUILD)/libquarry.a
	$(Q)$(LINK) $(LIBS)

TEST_PROGRAMS += $(BUILD)/tests/unit/fake_nbd_server
