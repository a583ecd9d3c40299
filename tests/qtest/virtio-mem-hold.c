/*
 * Hold the host: a qtest decides when, and whether, QEMU's calls to populate
 * memory and to give it back end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "qemu/thread.h"
#include "virtio-mem-guest.h"
#include "virtio-mem-hold.h"
#include "virtio-mem-migrate.h"

/* Next to the test programs, which run in QEMU's build directory. */
#define HOLD_LIBRARY "tests/qtest/libvirtio-mem-slow-host.so"
#define QEMU_BINARY "QTEST_QEMU_BINARY"
#define HOLD_POLL_MS 5
#define DRAIN_EVENT "virtio_mem_drain"
#define WORK_EVENT "virtio_mem_work_begin"

static int hold_listener = -1;
static char *hold_path;
static char *hold_no_threads;
static char *hold_max_map_count;
static char *hold_refused;
static char *hold_log;

/* The thread that waits for a drain. */
static struct {
    QemuThread thread;
    VirtioMemHeld held;
    size_t nb_before;
    bool stop;                      /* atomic */
    bool drained;
    VirtioMemDrained result;
} drain;

static VirtioMemGuest *
hold_start(const VirtioMemOptions *given,
           VirtioMemGuest *(*start)(const VirtioMemOptions *opts))
{
    VirtioMemOptions opts = given ? *given : (VirtioMemOptions){};
    g_autofree char *library = g_canonicalize_filename(HOLD_LIBRARY, NULL);
    g_autofree char *usual = g_strdup(g_getenv(QEMU_BINARY));
    g_autofree char *slow = NULL;
    g_autofree char *args = NULL;
    VirtioMemGuest *vm;

    g_assert_true(g_file_test(library, G_FILE_TEST_EXISTS));
    if (!hold_path) {
        hold_path = virtio_mem_temp_path("hold.sock");
        hold_no_threads = virtio_mem_temp_path("no-threads");
        hold_max_map_count = virtio_mem_temp_path("max-map-count");
        hold_refused = virtio_mem_temp_path("refused");
        hold_log = virtio_mem_temp_path("drain.log");
    }
    unlink(hold_log);
    unlink(hold_max_map_count);
    unlink(hold_refused);
    /* For QEMU alone, and not for the shell that starts it. */
    slow = g_strdup_printf("env LD_PRELOAD=%s " VM_HOLD_SOCKET "=%s "
                           VM_HOLD_NO_THREADS "=%s "
                           VM_HOLD_MAX_MAP_COUNT "=%s "
                           VM_HOLD_REFUSED "=%s %s",
                           library, hold_path, hold_no_threads,
                           hold_max_map_count, hold_refused, usual);
    args = g_strdup_printf("%s -trace " DRAIN_EVENT " -trace " WORK_EVENT
                           " -D %s", opts.args ?: "", hold_log);
    opts.args = args;
    g_setenv(QEMU_BINARY, slow, true);
    vm = start(&opts);
    g_setenv(QEMU_BINARY, usual, true);
    vm->opts.args = NULL;
    return vm;
}

VirtioMemGuest *virtio_mem_hold_start(const VirtioMemOptions *opts)
{
    return hold_start(opts, virtio_mem_guest_start);
}

VirtioMemGuest *virtio_mem_hold_target(const VirtioMemOptions *opts)
{
    return hold_start(opts, virtio_mem_target);
}

void virtio_mem_hold_begin(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int ret;

    g_assert_cmpint(hold_listener, ==, -1);
    g_assert_cmpuint(strlen(hold_path), <, sizeof(address.sun_path));
    strcpy(address.sun_path, hold_path);
    unlink(hold_path);
    hold_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ret = bind(hold_listener, (struct sockaddr *)&address, sizeof(address));
    g_assert_cmpint(ret, ==, 0);
    ret = listen(hold_listener, 16);
    g_assert_cmpint(ret, ==, 0);
}

void virtio_mem_hold_end(void)
{
    unlink(hold_path);
    close(hold_listener);
    hold_listener = -1;
}

void virtio_mem_hold_allow_threads(bool allow)
{
    if (allow) {
        unlink(hold_no_threads);
    } else {
        bool is_written = g_file_set_contents(hold_no_threads, "", 0, NULL);

        g_assert_true(is_written);
    }
}

void virtio_mem_hold_refuse(const char *word)
{
    if (!word) {
        unlink(hold_refused);
    } else {
        bool is_written = g_file_set_contents(hold_refused, word, -1, NULL);

        g_assert_true(is_written);
    }
}

void virtio_mem_hold_set_max_map_count(uint64_t max_map_count)
{
    g_autofree char *content = g_strdup_printf("%" PRIu64, max_map_count);
    bool is_written = g_file_set_contents(hold_max_map_count, content, -1,
                                          NULL);

    g_assert_true(is_written);
}

/* False if no host call asks within @timeout_ms. */
static bool hold_accept(VirtioMemHeld *held, int timeout_ms)
{
    struct pollfd listener = { .fd = hold_listener, .events = POLLIN };

    if (poll(&listener, 1, timeout_ms) != 1) {
        return false;
    }
    held->fd = accept(hold_listener, NULL, NULL);
    g_assert_cmpint(held->fd, >=, 0);
    g_assert_cmpint(recv(held->fd, &held->question, sizeof(held->question), 0),
                    ==, sizeof(held->question));
    return true;
}

static VirtioMemHeld hold_next(void)
{
    VirtioMemHeld held;
    bool asked = hold_accept(&held, VM_WAIT_USEC / 1000);

    g_assert_true(asked);
    return held;
}

VirtioMemHeld virtio_mem_hold_next(VirtioMemHostCall expected)
{
    VirtioMemHeld held = hold_next();

    g_assert_cmpint(held.question.call, ==, expected);
    return held;
}

VirtioMemHeld virtio_mem_hold_skip_to(VirtioMemHostCall call)
{
    VirtioMemHeld held = hold_next();

    while (held.question.call != call) {
        virtio_mem_hold_release(held, 0);
        held = hold_next();
    }
    return held;
}

void virtio_mem_hold_release(VirtioMemHeld held, int error)
{
    g_assert_cmpint(send(held.fd, &error, sizeof(error), MSG_NOSIGNAL), ==,
                    sizeof(error));
    close(held.fd);
}

/* --- until a drain --- */

/* How often @event came, after the last @since if there was one. */
static size_t drain_count(const char *event, const char *since)
{
    g_autofree char *log = NULL;
    size_t nb = 0;

    if (g_file_get_contents(hold_log, &log, NULL, NULL)) {
        const char *at = since ? g_strrstr(log, since) : NULL;

        for (at = at ?: log; (at = strstr(at, event)); at++) {
            nb++;
        }
    }
    return nb;
}

static void drain_let_go(VirtioMemHeld held)
{
    drain.result.nb_populates += held.question.call == VM_HOST_POPULATE;
    virtio_mem_hold_release(held, 0);
}

static void *drain_thread(void *unused)
{
    VirtioMemHeld held;

    while (!drain.drained && !qatomic_read(&drain.stop)) {
        g_usleep(HOLD_POLL_MS * 1000);
        drain.drained = drain_count(DRAIN_EVENT, NULL) > drain.nb_before;
    }
    drain_let_go(drain.held);
    while (!qatomic_read(&drain.stop)) {
        if (hold_accept(&held, HOLD_POLL_MS)) {
            drain_let_go(held);
        }
    }
    return NULL;
}

void virtio_mem_hold_until_drain(VirtioMemHeld held)
{
    memset(&drain, 0, sizeof(drain));
    drain.held = held;
    drain.nb_before = drain_count(DRAIN_EVENT, NULL);
    qemu_thread_create(&drain.thread, "drain", drain_thread, NULL,
                       QEMU_THREAD_JOINABLE);
}

VirtioMemDrained virtio_mem_hold_drained(void)
{
    qatomic_set(&drain.stop, true);
    qemu_thread_join(&drain.thread);
    virtio_mem_hold_end();
    g_assert_true(drain.drained);
    drain.result.nb_more = drain_count(WORK_EVENT, DRAIN_EVENT);
    return drain.result;
}
