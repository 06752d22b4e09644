# tests/sim/sim.mk: the simulation programs, one per tests/sim/main_*.c: build/sim-disk and so on.

SIM_MAIN := $(patsubst tests/sim/main_%.c,%,$(wildcard tests/sim/main_*.c))
SIM_PROGRAMS := $(SIM_MAIN:%=$(BUILD)/sim-%)

$(SIM_PROGRAMS): $(BUILD)/sim-%: $(BUILD)/tests/sim/main_%.o $(SIM_OBJ) $(BUILD)/libquarry.a
	$(Q)$(LINK) $(LIBS)

# What belongs to one program lies in a folder of its name, so that unit tests do not link it.
$(BUILD)/sim-disk: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/disk/*.c))

$(BUILD)/sim-history: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/history/*.c))

$(BUILD)/sim-copy: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/copy/*.c))

$(BUILD)/sim-cluster: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/cluster/*.c))

CHECK_TESTS    += '@1500! $(BUILD)/sim-cluster --seeds 2000 --first 10001 --replay tests/sim/cluster/seeds'
CHECK_CI_TESTS += '$(BUILD)/sim-cluster --seeds 50 --first 30001'
SOAK_TESTS     += '$(BUILD)/sim-cluster --seeds $(or $(SEEDS),100000) --jobs 2 --first $(shell date +%s)'

CHECK_TESTS    += '@600! $(BUILD)/sim-copy --seeds 500'
CHECK_CI_TESTS += '$(BUILD)/sim-copy --seeds 100 --first 5000'
SOAK_TESTS     += '$(BUILD)/sim-copy --seeds $(or $(SEEDS),100000) --jobs 2 --first $(shell date +%s)'

CHECK_TESTS    += '@900! $(BUILD)/sim-history --seeds 2000'
CHECK_CI_TESTS += '@300 $(BUILD)/sim-history --seeds 200'
SOAK_TESTS     += '$(BUILD)/sim-history --seeds 1000000 --jobs 2'

TEST_PROGRAMS  += $(SIM_PROGRAMS)
CHECK_TESTS    += '@900! $(BUILD)/sim-disk --seeds 2000 --replay tests/sim/disk/seeds' '@600! $(BUILD)/sim-disk --seeds 15 --every-index'
CHECK_CI_TESTS += '$(BUILD)/sim-disk --seeds 100 --first 5000' '@300 $(BUILD)/sim-disk --seeds 1 --every-index'
# another part of the seeds at each soak: `date` chooses where it begins, and each failure names its seed
SOAK_TESTS     += '$(BUILD)/sim-disk --seeds $(or $(SEEDS),100000) --jobs 2 --first $(shell date +%s)' \
                  '$(BUILD)/sim-disk --seeds $(or $(SEEDS),100000) --every-index --first $(shell date +%s)'

sim: $(SIM_PROGRAMS)
.PHONY: sim
