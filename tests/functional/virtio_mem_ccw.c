/*
 * A guest of an s390x machine that drives virtio-mem by channel programs.
 *
 * It has no operating system and no libc: clang makes one section of it that
 * runs anywhere.  It plugs two blocks, uses them and a third, which it may not,
 * and says what it heard in a table at REPORT, a word each, in the order of the
 * enum.  Then it waits until nothing is requested any more, and gives all back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

/* Where things are, below the program; each has a page. */
#define REPORT      0x8000UL
#define SCHIB       0x9000UL
#define ORB         0xa000UL
#define IRB         0xa100UL
#define CCW         0xa200UL
#define DATA        0xb000UL
#define DESC        0xc000UL
#define AVAIL       0xd000UL
#define USED        0xe000UL
#define REQUEST     0xf000UL
#define RESPONSE    0xf100UL

/* The channel and the device use them, too. */
typedef volatile u8 shared8;            /* see above */
typedef volatile u16 shared16;          /* see above */
typedef volatile u32 shared32;          /* see above */
typedef volatile u64 shared64;          /* see above */

#define AT8(address)    (*(shared8 *)(address))
#define AT16(address)   (*(shared16 *)(address))
#define AT32(address)   (*(shared32 *)(address))
#define AT64(address)   (*(shared64 *)(address))

enum {
    DONE,                   /* 1: waits for the host; 2: the end; 3: failed */
    FAILED,                 /* where */
    PLUGGED,                /* PLUG of blocks 0 and 1 */
    FRESH,                  /* 1 if both read as zero */
    KEPT,                   /* 1 if both keep what was written */
    BEYOND,                 /* PLUG beyond what is requested */
    AGAIN,                  /* PLUG of what is plugged */
    MIXED,                  /* STATE of blocks 1 and 2 */
    UNPLUGGED,              /* UNPLUG of block 0 */
    ALL,                    /* UNPLUG ALL */
};

/* The first channel device of a machine that has nothing else. */
#define SUBCHANNEL  0x00010000UL

enum {
    CCW_WRITE_FEAT = 0x11, CCW_SET_VQ = 0x13, CCW_READ_CONF = 0x22,
    CCW_WRITE_STATUS = 0x31, CCW_VDEV_RESET = 0x33, CCW_SET_VIRTIO_REV = 0x83,
};

enum { REQ_PLUG, REQ_UNPLUG, REQ_UNPLUG_ALL, REQ_STATE };

#define RING_SIZE   8
#define CONFIG_SIZE 56

/* From the first block on, far from what is plugged: 128 MiB. */
#define NOT_OURS    0x8000000

asm(".globl _start\n"
    "_start:\n"
    "    llilh %r15, 8\n"           /* the stack ends at 512 KiB */
    "    aghi %r15, -160\n"
    "    brasl %r14, ccw_main\n"
    "0:  j 0b\n");

static void ccw_main(void) asm("ccw_main");

static void report(u32 what, u32 value)
{
    AT32(REPORT + 4 * what) = value;
}

static void fail(u32 where)
{
    report(FAILED, where);
    report(DONE, 3);
    while (1) {
        continue;
    }
}

/* --- the channel --- */

#define CHANNEL(name, instruction)                              \
static u32 name(u64 address)                                    \
{                                                               \
    register u64 subchannel asm("1") = SUBCHANNEL;              \
    u32 cc;                                                     \
                                                                \
    asm volatile(instruction " 0(%[address])\n"                 \
                 "ipm %[cc]\n"                                  \
                 "srl %[cc], 28\n"                              \
                 : [cc] "=d" (cc)                               \
                 : "d" (subchannel), [address] "a" (address)    \
                 : "cc", "memory");                             \
    return cc;                                                  \
}

CHANNEL(store_subchannel, "stsch")
CHANNEL(modify_subchannel, "msch")
CHANNEL(start_subchannel, "ssch")
CHANNEL(test_subchannel, "tsch")

static void enable_channel(void)
{
    if (store_subchannel(SCHIB)) {
        fail(1);
    }
    AT32(SCHIB + 4) |= 0x00800000;
    if (modify_subchannel(SCHIB)) {
        fail(2);
    }
}

/* One command, whose data are at DATA. */
static void command(u8 code, u16 count)
{
    AT8(CCW) = code;
    AT8(CCW + 1) = 0x20;             /* any length will do */
    AT16(CCW + 2) = count;
    AT32(CCW + 4) = DATA;
    AT32(ORB) = 0;
    AT32(ORB + 4) = 0x00c0ff00;      /* format 1, prefetch, all paths */
    AT32(ORB + 8) = CCW;
    if (start_subchannel(ORB)) {
        fail(0x100 | code);
    }
    while (test_subchannel(IRB)) {
        continue;
    }
    /* Channel end and device end, and nothing else. */
    if (AT32(IRB + 8) >> 16 != 0x0c00) {
        fail(0x200 | code);
    }
}

/* --- the driver --- */

static u16 le16(u16 value)
{
    return value << 8 | value >> 8;
}

static u32 le32(u32 value)
{
    return (u32)le16(value) << 16 | le16(value >> 16);
}

static u64 le64(u64 value)
{
    return (u64)le32(value) << 32 | le32(value >> 32);
}

static void set_status(u8 status)
{
    AT8(DATA) = status;
    command(CCW_WRITE_STATUS, 1);
}

static void accept_features(u32 features, u8 index)
{
    AT32(DATA) = le32(features);
    AT8(DATA + 4) = index;
    command(CCW_WRITE_FEAT, 5);
}

static void set_ring(void)
{
    AT64(DATA) = DESC;
    AT32(DATA + 8) = 0;
    AT16(DATA + 12) = 0;
    AT16(DATA + 14) = RING_SIZE;
    AT64(DATA + 16) = AVAIL;
    AT64(DATA + 24) = USED;
    command(CCW_SET_VQ, 32);
}

static void start_device(void)
{
    AT16(DATA) = 1;                  /* revision: virtio 1 */
    AT16(DATA + 2) = 0;
    command(CCW_SET_VIRTIO_REV, 4);
    command(CCW_VDEV_RESET, 0);
    set_status(1);
    set_status(3);
    accept_features(2, 0);              /* UNPLUGGED_INACCESSIBLE */
    accept_features(1, 1);              /* VERSION_1 */
    set_status(11);
    set_ring();
    set_status(15);
}

static u64 config(u32 offset)
{
    command(CCW_READ_CONF, CONFIG_SIZE);
    return le64(AT64(DATA + offset));
}

static u64 block_size(void)
{
    return config(0);
}

static u64 first_block(void)
{
    return config(16);
}

static u64 requested_size(void)
{
    return config(48);
}

static void kick(void)
{
    register u64 function asm("1") = 3;
    register u64 subchannel asm("2") = SUBCHANNEL;
    register u64 queue asm("3");
    register u64 cookie asm("4");

    queue = 0;
    cookie = 0;
    asm volatile("diag %%r2, %%r4, 0x500"
                 : "+d" (subchannel)
                 : "d" (function), "d" (queue), "d" (cookie)
                 : "cc", "memory");
}

static void set_descriptor(u32 i, u64 address, u32 length, u16 flags)
{
    AT64(DESC + 16 * i) = le64(address);
    AT32(DESC + 16 * i + 8) = le32(length);
    AT16(DESC + 16 * i + 12) = le16(flags);
    AT16(DESC + 16 * i + 14) = le16(i + 1);
}

/* Returns what kind of answer came; its state, if it has one, is behind it. */
static u32 request(u16 type, u64 block, u16 nb_blocks)
{
    const u16 number = le16(AT16(AVAIL + 2));

    AT16(REQUEST) = le16(type);
    AT64(REQUEST + 8) = le64(first_block() + block * block_size());
    AT16(REQUEST + 16) = le16(nb_blocks);
    set_descriptor(0, REQUEST, 24, 1);
    set_descriptor(1, RESPONSE, 10, 2);
    AT16(AVAIL + 4 + 2 * (number % RING_SIZE)) = 0;
    AT16(AVAIL + 2) = le16(number + 1);
    kick();
    while (AT16(USED + 2) != AT16(AVAIL + 2)) {
        continue;
    }
    return le16(AT16(RESPONSE));
}

/* --- what it does --- */

static u32 both_blocks_are(u64 value)
{
    const u64 first = first_block(), end = first + 2 * block_size();

    for (u64 at = first; at < end; at += 4096) {
        if (AT64(at) != value) {
            return 0;
        }
    }
    return 1;
}

static void fill_both_blocks(u64 value)
{
    const u64 first = first_block(), end = first + 2 * block_size();

    for (u64 at = first; at < end; at += 4096) {
        AT64(at) = value;
    }
}

static __attribute__((used)) void ccw_main(void)
{
    enable_channel();
    start_device();
    report(PLUGGED, request(REQ_PLUG, 0, 2));
    report(FRESH, both_blocks_are(0));
    fill_both_blocks(0x0123456789abcdefUL);
    report(KEPT, both_blocks_are(0x0123456789abcdefUL));
    report(BEYOND, request(REQ_PLUG, 2, 1));
    report(AGAIN, request(REQ_PLUG, 1, 1));
    report(MIXED, request(REQ_STATE, 1, 2) << 16 |
                  le16(AT16(RESPONSE + 8)));
    AT64(first_block() + NOT_OURS) = 1;
    report(DONE, 1);
    while (requested_size()) {
        continue;
    }
    report(UNPLUGGED, request(REQ_UNPLUG, 0, 1));
    report(ALL, request(REQ_UNPLUG_ALL, 0, 0));
    report(DONE, 2);
}
