/*
 * commands.c: the table of everything that can be said to `quarry`.
 *
 * 1. The commands of a noun stand together, in the order in which help shows them.
 * 2. A command with verb NULL is the only one of its noun.
 */
#include "cli/command.h"

#include "cli/handlers.h"
#include "cli/text.h"

#include <stdio.h>
#include <string.h>

#define REPLICAS_MAX 16

static const char *const failure_domains[] = {"disk", "node", "rack", "zone", NULL};
static const char *const image_formats[] = {"raw", "qcow2", NULL};
static const char *const shells[] = {"bash", "zsh", NULL};
static const char *const name_kinds[] = {"volume", "pool", "disk", "node", "snapshot", "export", NULL};

/* Everything in the tables is written short, a row a command, an option a line. */
/* clang-format off */
#define WORD(SHOWN, KIND)	  {.shown = SHOWN, .kind = KIND}
#define MAYBE(SHOWN, KIND)	  {.shown = SHOWN, .kind = KIND, .is_optional = true}
#define MANY(SHOWN, KIND)	  {.shown = SHOWN, .kind = KIND, .is_optional = true, .is_many = true}
#define NUMBER(SHOWN, MIN, MAX)	  {.shown = SHOWN, .kind = VALUE_NUMBER, .min = MIN, .max = MAX}
#define CHOICE(SHOWN, CHOICES)	  {.shown = SHOWN, .kind = VALUE_CHOICE, .choices = CHOICES}
#define NO_VALUE		  {.shown = NULL}
#define OPTION(NAME, VALUE, HELP) {.name = NAME, .value = VALUE, .help = HELP}
#define NEEDED(NAME, VALUE, HELP) {.name = NAME, .value = VALUE, .help = HELP, .is_needed = true}
#define END			  {.name = NULL}
#define OPTIONS(...)		  (const struct option[]) { __VA_ARGS__, END }

#define REPLICAS     OPTION("replicas", NUMBER("N", 1, REPLICAS_MAX), "copies of each piece of data")
#define MIN_REPLICAS OPTION("min-replicas", NUMBER("N", 1, REPLICAS_MAX), "with fewer copies than this, writes wait, then fail")
#define DOMAIN                                                                                                         \
	OPTION("failure-domain", CHOICE("DOMAIN", failure_domains), "what no two copies share: disk, node, rack or zone")

#define NO_VERIFY OPTION("no-verify", NO_VALUE, "do not read the copy back and compare; saves about half of the time")
#define KEY_FILE OPTION("key-file", WORD("PATH", VALUE_PATH), "the key of an encrypted repository: 32 random bytes or more")

const struct option global_options[] = {
	OPTION("socket", WORD("PATH", VALUE_PATH), "the daemon's control socket; else QUARRY_SOCKET, /run/quarry/control.sock"),
	OPTION("server", WORD("URL", VALUE_TEXT), "daemon on another machine: https://HOST:PORT"),
	OPTION("token-file", WORD("PATH", VALUE_PATH), "file with the token for --server; else QUARRY_TOKEN"),
	OPTION("ca-file", WORD("PATH", VALUE_PATH), "certificate authority that signed the server's certificate"),
	OPTION("json", NO_VALUE, "print one JSON value, with keys that do not change"),
	OPTION("help", NO_VALUE, "show help for what stands before it"),
	OPTION("version", NO_VALUE, "show the version"),
	END,
};

const struct command commands[] = {
	/* ---- disk ---- */
	{.noun = "disk", .verb = "add", .run = disk_add, .arguments = {WORD("PATH", VALUE_PATH)},
	 .summary = "format a file or block device and add it to a pool",
	 .more = "What already holds data is refused. A file is made at --size when it does not exist; it is sparse, and\n"
		 "freed space is given back to the file system, unless --reserve keeps it.",
	 .options = OPTIONS(OPTION("size", WORD("SIZE", VALUE_SIZE), "size of the file to make; else what is there"),
			    OPTION("pool", WORD("POOL", VALUE_POOL), "pool that it joins; else default"),
			    OPTION("reserve", NO_VALUE, "write the file through once, keep its space: steadier, faster flushes"),
			    OPTION("force", NO_VALUE, "format it even if it holds data, which is lost"),
			    OPTION("accept-older", NO_VALUE, "open a disk again even if it is an older copy of it"))},
	{.noun = "disk", .verb = "list", .run = disk_list, .summary = "list the disks"},
	{.noun = "disk", .verb = "show", .run = disk_show, .arguments = {WORD("DISK", VALUE_DISK)},
	 .summary = "show one disk", .more = "DISK is the name, the UUID or the path of a disk."},
	{.noun = "disk", .verb = "drain", .run = disk_drain, .arguments = {WORD("DISK", VALUE_DISK)},
	 .summary = "move all that lies on a disk to the other disks of its pool",
	 .more = "Runs in the background, behind clients; 'quarry disk show' tells how far it is. Then the disk can be removed.",
	 .options = OPTIONS(OPTION("cancel", NO_VALUE, "drain it no more; what has left it stays where it is"),
			    OPTION("wait", NO_VALUE, "wait for the end; exit 1 if it cannot go on"))},
	{.noun = "disk", .verb = "remove", .run = disk_remove, .arguments = {WORD("DISK", VALUE_DISK)},
	 .summary = "take a disk out of its pool",
	 .more = "Refused while volumes have data on it. The file or device is left as it is.",
	 .options = OPTIONS(OPTION("force", NO_VALUE, "even if volumes have data on it, which is lost to them"))},
	{.noun = "disk", .verb = "scrub", .run = disk_scrub, .arguments = {WORD("DISK", VALUE_DISK)},
	 .summary = "read and verify everything on a disk",
	 .more = "Runs in the background; 'quarry disk show' tells how far it is.",
	 .options = OPTIONS(OPTION("wait", NO_VALUE, "wait for the end; exit 1 if bad blocks were found"))},
	{.noun = "disk", .verb = "check", .run = disk_check, .arguments = {WORD("PATH", VALUE_PATH)},
	 .summary = "verify a disk that no daemon uses, and explain what is found",
	 .more = "Reads every pointer, checksum and count; changes nothing. Exit 1 when something is wrong."},

	/* ---- node ---- */
	{.noun = "node", .verb = "list", .run = node_list, .summary = "list the nodes"},
	{.noun = "node", .verb = "show", .run = node_show, .arguments = {WORD("NODE", VALUE_NODE)},
	 .summary = "show one node"},
	{.noun = "node", .verb = "drain", .run = node_drain, .arguments = {WORD("NODE", VALUE_NODE)},
	 .summary = "move all that a node holds and serves to the other nodes",
	 .more = "Its disks are drained, and what is attached there over NBD is served by other nodes. Runs in the background,\n"
		 "behind clients; 'quarry node show' tells how far it is, and what cannot go.",
	 .options = OPTIONS(OPTION("cancel", NO_VALUE, "drain it no more; what has left it stays where it is"),
			    OPTION("wait", NO_VALUE, "wait for the end; exit 1 if something cannot go"))},

	/* ---- pool ---- */
	{.noun = "pool", .verb = "create", .run = pool_create, .arguments = {WORD("NAME", VALUE_NAME)},
	 .summary = "create a pool, to which disks can be added",
	 .options = OPTIONS(REPLICAS, MIN_REPLICAS, DOMAIN)},
	{.noun = "pool", .verb = "list", .run = pool_list, .summary = "list the pools"},
	{.noun = "pool", .verb = "show", .run = pool_show, .arguments = {WORD("POOL", VALUE_POOL)},
	 .summary = "show one pool"},
	{.noun = "pool", .verb = "set", .run = pool_set, .arguments = {WORD("POOL", VALUE_POOL)},
	 .summary = "change what new volumes of a pool get", .options = OPTIONS(REPLICAS, MIN_REPLICAS, DOMAIN)},
	{.noun = "pool", .verb = "delete", .run = pool_delete, .arguments = {WORD("POOL", VALUE_POOL)},
	 .summary = "delete a pool that has no disks and no volumes"},

	/* ---- volume ---- */
	{.noun = "volume", .verb = "create", .run = volume_create, .arguments = {WORD("NAME", VALUE_NAME)},
	 .summary = "create a thin volume",
	 .more = "It takes space only where it is written, and may be larger than the pool.",
	 .options = OPTIONS(NEEDED("size", WORD("SIZE", VALUE_SIZE), "such as 10G or 1.5T"),
			    OPTION("pool", WORD("POOL", VALUE_POOL), "pool that it is cut from; else default"), REPLICAS)},
	{.noun = "volume", .verb = "list", .run = volume_list, .summary = "list the volumes"},
	{.noun = "volume", .verb = "show", .run = volume_show, .arguments = {WORD("NAME", VALUE_VOLUME)},
	 .summary = "show one volume"},
	{.noun = "volume", .verb = "set", .run = volume_set, .arguments = {WORD("NAME", VALUE_VOLUME)},
	 .summary = "change a volume's settings", .options = OPTIONS(REPLICAS, MIN_REPLICAS)},
	{.noun = "volume", .verb = "resize", .run = volume_resize,
	 .arguments = {WORD("NAME", VALUE_VOLUME), WORD("SIZE", VALUE_SIZE)},
	 .summary = "grow or shrink a volume, also while it is attached",
	 .more = "Shrinking below the last block in use is refused.",
	 .options = OPTIONS(OPTION("force", NO_VALUE, "shrink even if data lies behind the new end; it is lost"))},
	{.noun = "volume", .verb = "rename", .run = volume_rename,
	 .arguments = {WORD("OLD", VALUE_VOLUME), WORD("NEW", VALUE_NAME)}, .summary = "give a volume another name"},
	{.noun = "volume", .verb = "move", .run = volume_move,
	 .arguments = {WORD("NAME", VALUE_VOLUME), WORD("NODE", VALUE_NODE)},
	 .summary = "have another node serve an attached volume",
	 .more = "Its NBD clients are disconnected, and find it at that node under the same name. It needs several copies."},
	{.noun = "volume", .verb = "clone", .run = volume_clone,
	 .arguments = {WORD("NAME@SNAP", VALUE_SNAPSHOT), WORD("NEW", VALUE_NAME)},
	 .summary = "make a volume from a snapshot",
	 .more = "Nothing is copied: both share what neither changes, and each may be deleted without the other."},
	{.noun = "volume", .verb = "delete", .run = volume_delete, .arguments = {WORD("NAME", VALUE_VOLUME)},
	 .summary = "delete a volume and its data",
	 .more = "Refused while it is attached. Its space is freed in the background.",
	 .options = OPTIONS(OPTION("snapshots", NO_VALUE, "with all of its snapshots; else refused while it has any"))},
	{.noun = "volume", .verb = "attach", .run = volume_attach, .arguments = {WORD("NAME", VALUE_EXPORT)},
	 .summary = "serve a volume to clients and print where",
	 .more = "Prints the URI for NBD clients, or the path of the socket for virtual machines (vhost-user-blk). A "
		 "volume may have both attachments at once. An attachment survives a restart of the daemon. NAME@SNAP "
		 "attaches a snapshot, which can only be read.",
	 .options = OPTIONS(OPTION("nbd", NO_VALUE, "over NBD"),
			    OPTION("vhost-user", NO_VALUE, "as a disk of a virtual machine, over vhost-user-blk"),
			    OPTION("queues", NUMBER("N", 1, 64), "queues that a virtual machine may use; else 16"),
			    OPTION("read-only", NO_VALUE, "clients cannot write"),
			    OPTION("takeover", NO_VALUE,
				   "even though its node is not alive; or its disks know a later attachment than the "
				   "metadata, and what was placed and snapshotted since is given up"))},
	{.noun = "volume", .verb = "detach", .run = volume_detach, .arguments = {WORD("NAME", VALUE_EXPORT)},
	 .summary = "end the serving of a volume; its clients are disconnected",
	 .options = OPTIONS(OPTION("nbd", NO_VALUE, "only over NBD"),
			    OPTION("vhost-user", NO_VALUE, "only over vhost-user"))},
	{.noun = "volume", .verb = "import", .run = volume_import,
	 .arguments = {WORD("SOURCE", VALUE_PATH), WORD("NAME", VALUE_NAME)},
	 .summary = "create a volume from a raw or qcow2 file or an NBD URI",
	 .more = "What a qcow2 file is made of must lie in this file: one with a backing file is refused.",
	 .options = OPTIONS(OPTION("format", CHOICE("FORMAT", image_formats), "raw or qcow2; else what the file looks like"),
			    OPTION("pool", WORD("POOL", VALUE_POOL), "pool that it is cut from; else default"), REPLICAS,
			    NO_VERIFY)},
	{.noun = "volume", .verb = "export", .run = volume_export,
	 .arguments = {WORD("NAME[@SNAP]", VALUE_EXPORT), WORD("TARGET", VALUE_PATH)},
	 .summary = "copy a volume or a snapshot into a raw or qcow2 file or to an NBD URI",
	 .more = "Of a volume that is in use export a snapshot: what changes meanwhile is copied as it comes.",
	 .options = OPTIONS(OPTION("format", CHOICE("FORMAT", image_formats), "raw or qcow2; else qcow2 for names in .qcow2"),
			    OPTION("force", NO_VALUE, "overwrite what is there"), NO_VERIFY)},

	/* ---- snapshot ---- */
	{.noun = "snapshot", .verb = "create", .run = snapshot_create,
	 .arguments = {WORD("NAME@SNAP", VALUE_SNAPSHOT), MANY("NAME2@SNAP", VALUE_SNAPSHOT)},
	 .summary = "keep a volume as it is now; several: all at one instant",
	 .more = "It takes no space until the volume changes. At most 16 volumes at a time."},
	{.noun = "snapshot", .verb = "list", .run = snapshot_list, .arguments = {MAYBE("NAME", VALUE_VOLUME)},
	 .summary = "list the snapshots, of one volume or of all"},
	{.noun = "snapshot", .verb = "show", .run = snapshot_show, .arguments = {WORD("NAME@SNAP", VALUE_SNAPSHOT)},
	 .summary = "show one snapshot, and what deleting it would free"},
	{.noun = "snapshot", .verb = "delete", .run = snapshot_delete, .arguments = {WORD("NAME@SNAP", VALUE_SNAPSHOT)},
	 .summary = "delete a snapshot",
	 .more = "In any order. What only it needs is freed in the background; volumes and clones are not touched."},
	{.noun = "snapshot", .verb = "rollback", .run = snapshot_rollback,
	 .arguments = {WORD("NAME@SNAP", VALUE_SNAPSHOT)},
	 .summary = "make a volume what it was, content and size",
	 .more = "Refused while the volume is attached. What it held since then is lost, unless a snapshot keeps it."},
	{.noun = "snapshot", .verb = "schedule", .run = snapshot_schedule, .arguments = {WORD("NAME", VALUE_VOLUME)},
	 .summary = "take snapshots of a volume by the clock",
	 .more = "Snapshots that were not taken by the schedule are never deleted by it.",
	 .options = OPTIONS(OPTION("every", WORD("TIME", VALUE_TIME), "such as 15m, 1h or 7d; at least 10s"),
			    OPTION("keep", NUMBER("N", 0, UINT32_MAX), "how many of them stay; older ones are deleted"),
			    OPTION("off", NO_VALUE, "end the schedule; its snapshots stay"))},
	{.noun = "snapshot", .verb = "diff", .run = snapshot_diff,
	 .arguments = {WORD("NAME@FROM", VALUE_SNAPSHOT), MAYBE("NAME@TO", VALUE_EXPORT)},
	 .summary = "list the extents that changed since a snapshot",
	 .more = "Until another snapshot, or until now. Extents are offset and length in bytes; NAME@TO may be of another\n"
		 "volume, such as a clone."},

	/* ---- backup ---- */
	{.noun = "backup", .verb = "create", .run = backup_create,
	 .arguments = {WORD("NAME@SNAP", VALUE_SNAPSHOT), WORD("REPOSITORY", VALUE_PATH)},
	 .summary = "back up a snapshot into a directory",
	 .more = "Makes a repository of a new or empty directory. Reads only what has changed since the newest backup\n"
		 "whose snapshot is still there. One that is interrupted is simply begun again.",
	 .options = OPTIONS(KEY_FILE, OPTION("rate-limit", WORD("SIZE", VALUE_SIZE),
					     "read at most this much a second, 64K or more"))},
	{.noun = "backup", .verb = "list", .run = backup_list, .arguments = {WORD("REPOSITORY", VALUE_PATH)},
	 .summary = "list the backups in a repository", .options = OPTIONS(KEY_FILE)},
	{.noun = "backup", .verb = "verify", .run = backup_verify, .arguments = {WORD("REPOSITORY", VALUE_PATH)},
	 .summary = "read everything in a repository and tell which backups are hurt",
	 .more = "Changes nothing. Exit 1 when a file is damaged or missing.", .options = OPTIONS(KEY_FILE)},
	{.noun = "backup", .verb = "restore", .run = backup_restore,
	 .arguments = {WORD("REPOSITORY[/NAME@SNAP]", VALUE_PATH), WORD("NEW", VALUE_NAME)},
	 .summary = "make a new volume of a backup, else of the newest one",
	 .more = "Everything that is read is verified; what was a hole is one again. With --lazy the volume is attached at once\n"
		 "and filled in the background, first what its clients ask for; the same command goes on with one that stopped.",
	 .options = OPTIONS(KEY_FILE, OPTION("pool", WORD("POOL", VALUE_POOL), "pool that it is cut from; else default"),
			    REPLICAS, OPTION("lazy", NO_VALUE, "attach it over NBD at once, fill it in the background"),
			    OPTION("wait", NO_VALUE, "with --lazy: end when it is filled"),
			    OPTION("zero-damaged", NO_VALUE, "with --lazy --wait: what is damaged there becomes zeros"))},
	{.noun = "backup", .verb = "prune", .run = backup_prune, .arguments = {WORD("REPOSITORY", VALUE_PATH)},
	 .summary = "forget old backups and free what only they need",
	 .more = "For each volume, what one of the rules keeps is kept. Days and weeks are those of UTC.",
	 .options = OPTIONS(OPTION("keep-last", NUMBER("N", 1, 1000000), "keep the newest N"),
			    OPTION("keep-daily", NUMBER("N", 1, 1000000), "keep the newest of each of N days that have one"),
			    OPTION("keep-weekly", NUMBER("N", 1, 1000000), "keep the newest of each of N weeks that have one"),
			    KEY_FILE, OPTION("dry-run", NO_VALUE, "only tell what would be done"),
			    OPTION("force", NO_VALUE, "even if damage hides what is still needed"))},

	/* ---- cluster ---- */
	{.noun = "cluster", .verb = "import-embedded", .run = cluster_import,
	 .summary = "move what this node has in its own store into the cluster's",
	 .more = "To be run on the node, while no quarryd runs there, with metadata.backend = \"etcd\" in its configuration.\n"
		 "Refused when a volume, pool or disk of the cluster has a name that one of this node has. May be repeated.",
	 .options = OPTIONS(OPTION("config", WORD("FILE", VALUE_PATH), "quarryd's configuration; else /etc/quarry/quarry.conf"))},

	/* ---- looking ---- */
	{.noun = "status", .run = status_show, .summary = "tell whether everything is healthy, and what is not",
	 .more = "Exit 1 while anything is not healthy."},
	{.noun = "events", .run = events_show, .summary = "show what happened",
	 .options = OPTIONS(OPTION("follow", NO_VALUE, "go on as things happen, until Ctrl-C; with --json a value each line"),
			    OPTION("after", NUMBER("N", 0, INT64_MAX), "only events with a higher number"))},
	{.noun = "top", .run = top_show, .summary = "show what is busy",
	 .more = "On a terminal it goes on until Ctrl-C, else it shows one interval.",
	 .options = OPTIONS(OPTION("interval", NUMBER("SECONDS", 1, 3600), "how long each measurement takes; else 1"),
			    OPTION("once", NO_VALUE, "show one interval and end"))},
	{.noun = "usage", .run = usage_show, .summary = "show where the space is"},
	{.noun = "completion", .run = completion_print, .arguments = {CHOICE("SHELL", shells)},
	 .summary = "print the completion script for bash or zsh"},
	{.noun = "names", .run = names_print, .arguments = {CHOICE("KIND", name_kinds)}, .is_hidden = true},
};
/* clang-format on */
const size_t n_commands = array_size(commands);

bool command_begins_noun(const struct command *command)
{
	return command == commands || strcmp(command[-1].noun, command->noun) != 0;
}

char *command_title(const struct command *command)
{
	return command->verb ? text_format("%s %s", command->noun, command->verb) : text_format("%s", command->noun);
}

/* " --size SIZE" */
static void option_synopsis(const struct option *option, FILE *out)
{
	fprintf(out, option->is_needed ? " --%s" : " [--%s", option->name);
	if (option->value.shown)
		fprintf(out, " %s", option->value.shown);
	if (!option->is_needed)
		fputc(']', out);
}

char *command_synopsis(const struct command *command)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	if (!out)
		abort();
	fprintf(out, "%s", command->noun);
	if (command->verb)
		fprintf(out, " %s", command->verb);
	for (size_t i = 0; i < command_n_arguments(command); i++) {
		const struct word *word = &command->arguments[i];
		fprintf(out, word->is_many ? " [%s ...]" : word->is_optional ? " [%s]" : " %s", word->shown);
	}
	for (const struct option *o = command_options(command); o->name; o++)
		option_synopsis(o, out);
	if (fclose(out) != 0)
		abort();
	return text;
}
