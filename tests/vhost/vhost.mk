# tests/vhost/vhost.mk: the client of vhost-user-blk and the programs made of it; none of them links quarry.

VHOST_SRC := $(filter-out tests/vhost/main_%.c,$(wildcard tests/vhost/*.c))
VHOST_OBJ := $(VHOST_SRC:%.c=$(BUILD)/%.o)

$(BUILD)/quarry-vhost-bench: $(BUILD)/tests/vhost/main_bench.o $(VHOST_OBJ)
	$(Q)$(LINK)

$(BUILD)/vhost-probe $(BUILD)/vhost-games: $(BUILD)/vhost-%: $(BUILD)/tests/vhost/main_%.o $(VHOST_OBJ)
	$(Q)$(LINK)

$(BUILD)/vhost-loadgen: $(BUILD)/tests/vhost/main_loadgen.o $(BUILD)/tests/e2e/load_oracle.o $(VHOST_OBJ)
	$(Q)$(LINK)

TEST_PROGRAMS += $(BUILD)/quarry-vhost-bench $(BUILD)/vhost-loadgen $(BUILD)/vhost-probe $(BUILD)/vhost-games

# the rings and layouts are tested against a device in memory
$(BUILD)/tests/unit/test_vhost_client: $(VHOST_OBJ)
