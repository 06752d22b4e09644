# tests/unit/uring.mk: the test of what does not close at once brings its own FUSE server.

$(BUILD)/tests/unit/test_uring_closing: $(BUILD)/tests/unit/fuse_world.o
