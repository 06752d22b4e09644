# The fuzzer of repositories has the command's own parts, and nothing of the daemon.
$(BUILD)/tests/fuzz/fuzz_backup: $(BUILD)/tests/fuzz/fuzz_backup.o $(FUZZ_MAIN) $(filter-out $(BUILD)/cli/main.o,$(CLI_OBJ))
	$(Q)$(LINK) $(FUZZ_LINK) $(CLI_LIBS)
