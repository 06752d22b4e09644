# tests/sim/sim.mk: the simulation programs, one per tests/sim/main_*.c: build/sim-disk and so on.

SIM_MAIN := $(patsubst tests/sim/main_%.c,%,$(wildcard tests/sim/main_*.c))
SIM_PROGRAMS := $(SIM_MAIN:%=$(BUILD)/sim-%)

$(SIM_PROGRAMS): $(BUILD)/sim-%: $(BUILD)/tests/sim/main_%.o $(SIM_SRC:%.c=$(BUILD)/%.o) $(BUILD)/libquarry.a
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) -o $@ $^ $(LIBS)

sim: $(SIM_PROGRAMS)
.PHONY: sim
