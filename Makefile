# quarry: the two commands are `make demo` and `make check`. docs/building.md says the rest.
#
#   make / make install PREFIX= DESTDIR=    build into build/, install
#   make check, make check-ci               every test; what CI adds: sanitizers, fuzzers, guests, crash rounds
#   make demo, demo-vm                      what it does; a virtual machine on a volume
#   make bench, bench-history, bench-replication    how fast it is; what history costs; what copies cost
#   make SAN=address|undefined|thread ...   the same targets under a sanitizer, in build-SAN/
#   make CC=clang BUILD=build-clang ...     the other compiler
#   make lint, tidy, soak, fuzz-minute, check-guest, check-fresh, deps
#
# Layout by floors (see docs/architecture.md): every floor is a list of .c files found by wildcard, so a new file needs no
# line here. A program is its main file and libquarry.a. What a folder of tests needs beyond that stands in its own
# fragment (tests/*/*.mk, included below), which may append to:
#   TEST_PROGRAMS    programs that `make check` builds
#   CHECK_TESTS      tests it runs: one quoted shell command each ('$(BUILD)/sim-disk --seeds 2000')
#   CHECK_CI_TESTS, SOAK_TESTS     the same for check-ci under sanitizers, and for soak

SAN      ?=
CC       ?= cc
BUILD    ?= build$(if $(SAN),-$(SAN))
PREFIX   ?= /usr/local
DESTDIR  ?=
Q        := $(if $(V),,@)

# as many compilers at once as there are processors, unless told otherwise
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wswitch-enum -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter \
            -Werror
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
# gcc says that it does not model the fences of rings that are shared with another process
SANFLAGS += $(if $(filter thread,$(SAN)),$(if $(findstring clang,$(CC)),,-Wno-tsan))
PACKAGES := liburing libisal libconfig sqlite3 jansson libmicrohttpd gnutls libcurl
CLI_PKGS := libcurl jansson libnbd libsodium libzstd

# asked once, and only when something is compiled: `make deps` may have to install pkg-config first
PKG       = $(eval PKG := $$(shell pkg-config --cflags $(PACKAGES) $(CLI_PKGS)))$(PKG)
LIBS      = $(eval LIBS := $$(shell pkg-config --libs $(PACKAGES)) -lpthread -lm)$(LIBS)
CLI_LIBS  = $(eval CLI_LIBS := $$(shell pkg-config --libs $(CLI_PKGS)))$(CLI_LIBS)
COMPILE   = $(CC) -std=gnu11 -D_GNU_SOURCE -I. -MMD -MP $(WARN) $(CFLAGS) $(SANFLAGS) $(PKG)
LINK      = $(CC) $(CFLAGS) $(SANFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^)

LIB_SRC  := $(filter-out daemon/main.c,$(wildcard daemon/*.c daemon/core/*.c daemon/metadata/*.c daemon/control/*.c \
            volumes/disk/*.c volumes/head/*.c replication/*.c frontends/nbd/*.c frontends/vhost-user/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o)
CLI_SRC  := $(wildcard cli/*.c cli/backup/*.c)
CLI_OBJ  := $(CLI_SRC:%.c=$(BUILD)/%.o)
SIM_SRC  := $(filter-out tests/sim/main_%.c,$(wildcard tests/sim/*.c))
SIM_OBJ  := $(SIM_SRC:%.c=$(BUILD)/%.o)
PROGRAMS := $(if $(wildcard daemon/main.c),$(BUILD)/quarryd) $(if $(CLI_SRC),$(BUILD)/quarry)

all: $(PROGRAMS)

# ---- compiling ----

# Packages are looked for once per list of them; `make deps` looks again.
DEPS_DONE := build/.deps
$(DEPS_DONE): packaging/debian-packages.txt
	@scripts/deps build test
	@mkdir -p $(@D) && touch $@

deps:
	@scripts/deps build test
	@mkdir -p build && touch $(DEPS_DONE)
deps-ci:
	@scripts/deps build test ci
deps-guest:
	@scripts/deps build test guest

# Objects are made anew when the command that makes them has changed, not when this file has.
$(BUILD)/flags: FORCE | $(DEPS_DONE)
	@mkdir -p $(@D)
	@echo '$(COMPILE)' | cmp -s - $@ || echo '$(COMPILE)' > $@

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c -o $@ $<

$(BUILD)/libquarry.a: $(LIB_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/quarryd: $(BUILD)/daemon/main.o $(BUILD)/libquarry.a
	$(Q)$(LINK) $(LIBS)

$(BUILD)/quarry: $(CLI_OBJ)
	$(Q)$(LINK) $(CLI_LIBS)

# ---- tests: one program per tests/unit/test_*.c, all with the simulator at hand ----
#
# A fake that stands in for a floor is an object named before the library, so that the library's own is not linked:
#   $(BUILD)/tests/unit/test_nbd_server: $(BUILD)/tests/unit/fake_volume.o        (in tests/unit/*.mk)

UNIT           := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
FUZZERS        := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
E2E            := $(filter-out %/lib.sh %-lib.sh,$(wildcard tests/e2e/*.sh tests/fault/*.sh))
TEST_PROGRAMS  :=
CHECK_TESTS    :=
CHECK_CI_TESTS :=
SOAK_TESTS     :=

$(BUILD)/tests/unit/test_%: $(BUILD)/tests/unit/test_%.o $(SIM_OBJ) $(BUILD)/libquarry.a
	$(Q)$(LINK) $(LIBS) -lcunit

# The command's own parts, without its main().
$(BUILD)/tests/unit/test_cli_%: $(BUILD)/tests/unit/test_cli_%.o $(filter-out $(BUILD)/cli/main.o,$(CLI_OBJ))
	$(Q)$(LINK) $(CLI_LIBS) -lcunit

$(BUILD)/tests/e2e/loadgen: $(BUILD)/tests/e2e/loadgen.o $(BUILD)/tests/e2e/load_oracle.o
	$(Q)$(LINK) $(CLI_LIBS)

# Under libFuzzer FUZZ_MAIN is empty; elsewhere a plain main() replays files.
FUZZ_MAIN ?= $(BUILD)/tests/fuzz/replay.o
$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(FUZZ_MAIN) $(SIM_OBJ) $(BUILD)/libquarry.a
	$(Q)$(LINK) $(FUZZ_LINK) $(LIBS)

-include tests/sim/sim.mk tests/models/models.mk $(wildcard tests/vhost/*.mk tests/unit/*.mk tests/fuzz/*.mk tests/e2e/*.mk)

LOADGEN  := $(if $(wildcard tests/e2e/loadgen.c),$(BUILD)/tests/e2e/loadgen)
RUN       = BUILD=$(BUILD) QUARRY_SAN=$(SAN) scripts/run-tests
FUZZ_RUN  = $(foreach f,$(FUZZERS),'$(BUILD)/tests/fuzz/$(f) tests/fuzz/corpus/$(f:fuzz_%=%)')

programs: $(PROGRAMS) $(UNIT) $(TEST_PROGRAMS) $(LOADGEN) $(FUZZERS:%=$(BUILD)/tests/fuzz/%)

check: deps programs
	@$(RUN) $(UNIT) $(CHECK_TESTS) $(FUZZ_RUN) 'scripts/tidy --objects $(BUILD)' $(E2E)

# Parts of check, for the one who is at work on them.
unit: $(UNIT)
	@$(RUN) $(UNIT)
# What starts threads, for ThreadSanitizer: the unit tests that do, and the daemon under clients, in a cluster, started again.
# Everything else is simulated, on one thread.
THREADED := $(patsubst %,$(BUILD)/tests/unit/test_%,control forward log metadata metadata_etcd reactor_uring uring_closing \
              uring_files uring_shared uring_streams vhost_memory volume_set cli_backup_files)
threads: $(PROGRAMS) $(LOADGEN) $(TEST_PROGRAMS) $(THREADED)
	@$(RUN) $(THREADED) $(patsubst %,tests/e2e/%.sh,nbd-clients vhost-basic restart cluster-copies)
e2e: programs
	@$(RUN) $(E2E)
fuzz-replay: $(FUZZERS:%=$(BUILD)/tests/fuzz/%)
	@$(RUN) $(FUZZ_RUN)
tidy: $(LIB_OBJ)
	@scripts/tidy --objects $(BUILD)
tests-of-build: programs
	@$(RUN) $(UNIT) $(CHECK_CI_TESTS)

# ---- what takes longer ----

check-ci: deps-ci deps-guest
	+@scripts/check-ci
check-guest: deps-guest programs
	@$(RUN) $(wildcard tests/guest/*.sh)
# Each boots twenty times; the one whose daemon restarts does so twenty times in each.
SOAK_GUESTS = $(foreach t,$(wildcard tests/guest/*.sh),\
              '@86400 for i in $$(seq 20); do $t $(if $(findstring vhost,$t),20) || exit; done')
check-fresh:
	@scripts/deps fresh && scripts/check-fresh
soak: programs
	@$(RUN) --limit 86400 $(SOAK_TESTS) '@86400 tests/e2e/crash.sh $(or $(ROUNDS),1000)' \
		'@86400 tests/e2e/vhost-restart.sh $(or $(ROUNDS),1000)' \
		'@86400 tests/e2e/vhost-restart-slow.sh $(or $(ROUNDS),1000)' \
		'@86400 tests/e2e/vhost-games.sh $(or $(ROUNDS),200)' \
		'@86400 tests/e2e/backup.sh $(or $(ROUNDS),1000)' $(SOAK_GUESTS)

# libFuzzer, in a build of its own: clang, address and undefined sanitizers, coverage.
FUZZ_BUILD := build-fuzz
FUZZ_MAKE   = $(MAKE) --no-print-directory CC=clang BUILD=$(FUZZ_BUILD) FUZZ_MAIN= FUZZ_LINK=-fsanitize=fuzzer \
              CFLAGS='-O1 -g' SANFLAGS='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all'
fuzz: deps-ci
	+@$(FUZZ_MAKE) $(FUZZERS:%=$(FUZZ_BUILD)/tests/fuzz/%)
# The tests in the same build: another one under these sanitizers would take as long as they do.
fuzz-tests: deps-ci
	+@$(FUZZ_MAKE) SAN=address,undefined tests-of-build
fuzz-minute: fuzz
	@scripts/fuzz --seconds $(or $(SECONDS),60) --build $(FUZZ_BUILD) $(FUZZERS)

lint: deps-ci
	+@scripts/lint

# ---- using it ----

demo: deps all $(BUILD)/quarry-vhost-bench
	@BUILD=$(BUILD) scripts/demo
demo-vm: deps-guest all
	@BUILD=$(BUILD) scripts/demo-vm
# History and replication follow unless BENCH chooses among what comes first.
bench: deps programs
	@BUILD=$(BUILD) scripts/bench $(BENCH)
	@$(if $(filter --targets% --workloads% --sparse,$(BENCH)),,BUILD=$(BUILD) scripts/bench-history $(BENCH) && \
		BUILD=$(BUILD) scripts/bench-replication $(BENCH))
bench-history bench-replication: deps programs
	@BUILD=$(BUILD) scripts/$@ $(BENCH)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/quarry/fio-jobs
	install -m 755 $(BUILD)/quarry $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(BUILD)/quarryd $(DESTDIR)$(PREFIX)/sbin/
	install -m 644 $(wildcard fio-jobs/*.fio) $(DESTDIR)$(PREFIX)/share/quarry/fio-jobs/
	for page in $(wildcard docs/man/*.[1-8]); do \
		install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done
	[ ! -e completion/quarry.bash ] || \
		install -D -m 644 completion/quarry.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/quarry
	[ ! -e completion/_quarry ] || \
		install -D -m 644 completion/_quarry $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_quarry
	[ ! -e packaging/quarryd.service ] || { install -d $(DESTDIR)$(PREFIX)/lib/systemd/system && \
		sed 's|/usr/local/sbin|$(PREFIX)/sbin|' packaging/quarryd.service \
			> $(DESTDIR)$(PREFIX)/lib/systemd/system/quarryd.service; }
	[ ! -e packaging/quarry.conf ] || \
		install -D -m 644 packaging/quarry.conf $(DESTDIR)$(PREFIX)/share/quarry/quarry.conf.sample

clean:
	rm -rf build build-*

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.PHONY: all deps deps-ci deps-guest programs check unit threads e2e fuzz-replay tidy tests-of-build check-ci check-guest \
        check-fresh soak fuzz fuzz-tests fuzz-minute lint demo demo-vm bench bench-history bench-replication \
        install clean FORCE
.SECONDARY:
.DELETE_ON_ERROR:
