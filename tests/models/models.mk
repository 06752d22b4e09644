# tests/models/models.mk: the executable models of the disk and of replication (README.md says what each one shows).
#
#   make models     builds both and holds them against their rules, as `make check` does

MODELS := $(BUILD)/tests/models/disk_crash $(BUILD)/tests/models/replication

# They are programs of their own, in a style of their own: a C compiler is all they need.
$(MODELS): $(BUILD)/tests/models/%: tests/models/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -O2 -w -o $@ $<

models: $(MODELS)
	@tests/models/run-models $(BUILD)/tests/models

TEST_PROGRAMS += $(MODELS)
CHECK_TESTS   += 'tests/models/run-models $(BUILD)/tests/models'
SOAK_TESTS    += '@7200 tests/models/run-models --scale 100 $(BUILD)/tests/models'
.PHONY: models
