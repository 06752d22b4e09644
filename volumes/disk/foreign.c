/*
 * foreign.c: names what a file or device holds that is not quarry's, so that nobody formats it by mistake.
 *
 * A table of well-known signatures, looked up in order: the more specific stands before the more general (a GPT disk
 * also has an MBR, an NTFS boot sector also ends like one). What is not recognised is still data: only zeros are blank.
 *
 * Invariant: nothing beyond the given length is looked at; a signature that does not fit in it is not there.
 */
#include "volumes/disk/disk_format.h"

#include "daemon/core/checksum.h"

#include <string.h>

#define SIGNATURE_MAX 16u

struct signature {
	uint32_t at;
	uint32_t len_bytes;
	char bytes[SIGNATURE_MAX];
	const char *name;
};

#define SIGNATURE(at, text, name)                                                                                      \
	{                                                                                                              \
		at, sizeof(text) - 1, text, name                                                                       \
	}
#define SLOT_AT(slot) ((slot)*SUPERBLOCK_SPACING * BLOCK_BYTES)

static const struct signature signatures[] = {
    SIGNATURE(SLOT_AT(0), SUPERBLOCK_MAGIC, "a quarry disk"),
    SIGNATURE(SLOT_AT(1), SUPERBLOCK_MAGIC, "a quarry disk"),
    SIGNATURE(SLOT_AT(2), SUPERBLOCK_MAGIC, "a quarry disk"),
    SIGNATURE(SLOT_AT(3), SUPERBLOCK_MAGIC, "a quarry disk"),
    /* layers that hold volumes or file systems inside */
    SIGNATURE(0, "LUKS\xba\xbe", "a LUKS encrypted volume"),
    SIGNATURE(0, "LABELONE", "an LVM physical volume"),
    SIGNATURE(512, "LABELONE", "an LVM physical volume"),
    SIGNATURE(1024, "LABELONE", "an LVM physical volume"),
    SIGNATURE(1536, "LABELONE", "an LVM physical volume"),
    SIGNATURE(0, "\xfc\x4e\x2b\xa9", "a member of an md RAID array"),
    SIGNATURE(4096, "\xfc\x4e\x2b\xa9", "a member of an md RAID array"),
    SIGNATURE(4096 + 24, "\xc6\x85\x73\xf6", "a bcache or bcachefs device"),
    SIGNATURE(0, "bluestore block", "a Ceph BlueStore device"),
    SIGNATURE(0, "dmvdo001", "a VDO volume"),
    /* images of virtual disks */
    SIGNATURE(0, "QFI\xfb", "a qcow2 image"),
    SIGNATURE(0, "QED", "a QED image"),
    SIGNATURE(0, "KDMV", "a VMDK image"),
    SIGNATURE(0, "vhdxfile", "a VHDX image"),
    SIGNATURE(0, "conectix", "a VHD image"),
    SIGNATURE(64, "\x7f\x10\xda\xbe", "a VDI image"),
    /* file systems and swap */
    SIGNATURE(1024 + 0x38, "\x53\xef", "an ext2, ext3 or ext4 file system"),
    SIGNATURE(0, "XFSB", "an XFS file system"),
    SIGNATURE(65536 + 64, "_BHRfS_M", "a btrfs file system"),
    SIGNATURE(4086, "SWAPSPACE2", "a swap area"),
    SIGNATURE(4086, "SWAP-SPACE", "a swap area"),
    SIGNATURE(65526, "SWAPSPACE2", "a swap area"),
    SIGNATURE(1024, "\x10\x20\xf5\xf2", "an F2FS file system"),
    SIGNATURE(0, "hsqs", "a squashfs file system"),
    SIGNATURE(32769, "CD001", "an ISO 9660 image"),
    SIGNATURE(32769, "BEA01", "a UDF file system"),
    SIGNATURE(32768, "JFS1", "a JFS file system"),
    SIGNATURE(65536, "\x01\x16\x19\x70", "a GFS2 file system"),
    SIGNATURE(65536 + 52, "ReIsEr", "a ReiserFS file system"),
    SIGNATURE(32, "NXSB", "an APFS container"),
    SIGNATURE(1024, "H+\0\x04", "an HFS+ file system"),
    SIGNATURE(3, "NTFS    ", "an NTFS file system"),
    SIGNATURE(3, "EXFAT   ", "an exFAT file system"),
    SIGNATURE(54, "FAT12   ", "a FAT file system"),
    SIGNATURE(54, "FAT16   ", "a FAT file system"),
    SIGNATURE(82, "FAT32   ", "a FAT file system"),
    /* partition tables */
    SIGNATURE(512, "EFI PART", "a GPT partition table"),
    SIGNATURE(4096, "EFI PART", "a GPT partition table"),
    SIGNATURE(510, "\x55\xaa", "an MBR partition table or boot sector"),
};

static bool holds(const uint8_t *head, size_t len_bytes, size_t at, const void *bytes, size_t n)
{
	return at + n <= len_bytes && memcmp(head + at, bytes, n) == 0;
}

/* ZFS labels hold an array of uberblocks, each at a multiple of 1 KiB, in the byte order of the machine that wrote it.
 */
static bool is_zfs(const uint8_t *head, size_t len_bytes)
{
	enum { FROM = 128 * KIB, TO = 256 * KIB, STEP = KIB };

	for (size_t at = FROM; at < TO; at += STEP)
		if (holds(head, len_bytes, at, "\x0c\xb1\xba\0\0\0\0\0", 8) ||
		    holds(head, len_bytes, at, "\0\0\0\0\0\xba\xb1\x0c", 8))
			return true;
	return false;
}

const char *foreign_name(const uint8_t *head, size_t len_bytes)
{
	if (bytes_are_zero(head, len_bytes))
		return NULL;
	for (size_t i = 0; i < array_size(signatures); i++)
		if (holds(head, len_bytes, signatures[i].at, signatures[i].bytes, signatures[i].len_bytes))
			return signatures[i].name;
	return is_zfs(head, len_bytes) ? "a member of a ZFS pool" : "data";
}
