# quarry: the two commands are `make demo` and `make check`. docs/building.md says the rest.
#
#   make / make install PREFIX= DESTDIR=    build into build/, install
#   make SAN=address|undefined|thread ...   the same targets under a sanitizer, in build-SAN/
#   make CC=clang                           the other compiler
#
# Layout by floors (see docs/architecture.md): every floor is a list of .c files found by wildcard, so a new file needs no
# line here. A program is its main file and libquarry.a.

SAN      ?=
CC       ?= cc
BUILD    := build$(if $(SAN),-$(SAN))
PREFIX   ?= /usr/local
DESTDIR  ?=
Q        := $(if $(V),,@)

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wswitch-enum -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter \
            -Werror
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
PACKAGES := liburing libisal libconfig sqlite3 jansson libmicrohttpd gnutls
CLI_PKGS := libcurl jansson libnbd
PKG      := $(shell pkg-config --cflags $(PACKAGES) $(CLI_PKGS) 2>/dev/null)
LIBS     := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lpthread -lm
CLI_LIBS := $(shell pkg-config --libs $(CLI_PKGS) 2>/dev/null)
COMPILE  := $(CC) -std=gnu11 -D_GNU_SOURCE -I. -MMD -MP $(WARN) $(CFLAGS) $(SANFLAGS) $(PKG)

LIB_SRC  := $(filter-out daemon/main.c,$(wildcard daemon/*.c daemon/core/*.c daemon/metadata/*.c daemon/control/*.c \
            volumes/disk/*.c volumes/head/*.c replication/*.c frontends/nbd/*.c frontends/vhost-user/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o)
CLI_SRC  := $(wildcard cli/*.c)
SIM_SRC  := $(filter-out tests/sim/main_%.c,$(wildcard tests/sim/*.c))

all: $(BUILD)/quarryd $(BUILD)/quarry

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c -o $@ $<

$(BUILD)/libquarry.a: $(LIB_OBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/quarryd: $(BUILD)/daemon/main.o $(BUILD)/libquarry.a
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/quarry: $(CLI_SRC:%.c=$(BUILD)/%.o)
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) -o $@ $^ $(CLI_LIBS)

# ---- tests: one program per tests/unit/test_*.c, all with the simulator at hand ----

UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(SIM_SRC:%.c=$(BUILD)/%.o) $(BUILD)/libquarry.a
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) -o $@ $^ $(LIBS) -lcunit

unit: $(UNIT)
	$(Q)for t in $(UNIT); do $$t || exit 1; done

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.PHONY: all unit
.SECONDARY:
