# tests/sim/sim.mk: the simulation programs, one per tests/sim/main_*.c: build/sim-disk and so on.

SIM_MAIN := $(patsubst tests/sim/main_%.c,%,$(wildcard tests/sim/main_*.c))
SIM_PROGRAMS := $(SIM_MAIN:%=$(BUILD)/sim-%)

$(SIM_PROGRAMS): $(BUILD)/sim-%: $(BUILD)/tests/sim/main_%.o $(SIM_OBJ) $(BUILD)/libquarry.a
	$(Q)$(LINK) $(LIBS)

# What belongs to one program lies in a folder of its name, so that unit tests do not link it.
$(BUILD)/sim-disk: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/disk/*.c))

TEST_PROGRAMS  += $(SIM_PROGRAMS)

sim: $(SIM_PROGRAMS)
.PHONY: sim
