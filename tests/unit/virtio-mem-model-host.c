/*
 * A model of all that runs around a virtio-mem device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "hw/virtio/virtio-mem-threads.h"
#include "virtio-mem-model-calls.h"
#include "virtio-mem-model-host.h"
#undef qemu_event_wait

#define NB_WORKERS 2
#define MAX_DEPTH 64
#define MAX_STEPS 200

ModelHost model;

/* --- the explorer --- */

static struct {
    unsigned depth;             /* of choices that vary */
    unsigned nb_taken;          /* in this run */
    unsigned nb_known;          /* that this run shall take */
    uint8_t taken[MAX_DEPTH];
    uint8_t of[MAX_DEPTH];
    GString *log;
} explorer;

void model_explore(unsigned depth)
{
    g_assert_cmpuint(depth, <=, MAX_DEPTH);
    explorer.depth = depth;
    explorer.nb_known = 0;
    explorer.nb_taken = 0;
}

bool model_next(void)
{
    unsigned nb = explorer.nb_taken;

    while (nb && explorer.taken[nb - 1] + 1 == explorer.of[nb - 1]) {
        nb--;
    }
    if (nb) {
        explorer.taken[nb - 1]++;
    }
    explorer.nb_known = nb;
    explorer.nb_taken = 0;
    return nb;
}

static unsigned explorer_choose(unsigned nb)
{
    const unsigned at = explorer.nb_taken;

    if (nb == 1 || at == explorer.depth) {
        return 0;
    }
    if (at >= explorer.nb_known) {
        explorer.taken[at] = 0;
        explorer.of[at] = nb;
    }
    g_assert_cmpuint(explorer.of[at], ==, nb);
    explorer.nb_taken++;
    return explorer.taken[at];
}

void model_fail(const char *what)
{
    fprintf(stderr, "model: %s; after: %s\n", what, explorer.log->str);
    abort();
}

/* --- threads --- */

typedef struct Worker {
    Coroutine *co;              /* in a task */
    VirtIOMEMTask *task;
} Worker;

typedef struct Rogue {
    const char *todo;           /* blocks */
} Rogue;

typedef struct Bh {
    void (*run)(void *);
    void *opaque;
} Bh;

static struct {
    GQueue tasks;
    Worker workers[NB_WORKERS];
    Worker *worker;             /* whose step it is */
    GQueue bhs;

    Coroutine *guard;
    void *(*guard_run)(void *);
    bool guard_quits;
    bool guard_sleeps;
    int guard_timeout;

    Rogue rogues[MODEL_ROGUES];
    int64_t now;
} threads;

bool virtio_mem_threads_push(GThreadPool *pool, VirtIOMEMTask *task)
{
    g_queue_push_tail(&threads.tasks, g_atomic_rc_box_acquire(task));
    return true;
}

/* So that each slice is a step. */
bool virtio_mem_threads_are_wanted(GThreadPool *pool)
{
    return true;
}

unsigned int virtio_mem_threads_max(void)
{
    return NB_WORKERS;
}

bool virtio_mem_threads_have_room(void)
{
    return true;
}

GThreadPool *virtio_mem_threads_new(ThreadContext *context,
                                    unsigned int nb_threads, Error **errp)
{
    return (GThreadPool *)&threads;
}

void virtio_mem_threads_free(GThreadPool *pool)
{
}

static void task_clear(void *opaque)
{
    VirtIOMEMTask *task = opaque;

    task->clear(task);
}

void virtio_mem_threads_release(VirtIOMEMTask *task)
{
    g_atomic_rc_box_release_full(task, task_clear);
}

static void coroutine_fn worker_co(void *opaque)
{
    Worker *worker = opaque;

    worker->task->run(worker->task);
    virtio_mem_threads_release(worker->task);
    worker->co = NULL;
}

/* Those that have nothing to do are all alike. */
static bool worker_can(const Worker *worker)
{
    const Worker *first = threads.workers;

    while (first->co && first < threads.workers + NB_WORKERS - 1) {
        first++;
    }
    return worker->co || (worker == first && threads.tasks.length);
}

static void worker_step(Worker *worker)
{
    threads.worker = worker;
    if (!worker->co) {
        worker->task = g_queue_pop_head(&threads.tasks);
        worker->co = qemu_coroutine_create(worker_co, worker);
    }
    qemu_coroutine_enter(worker->co);
    threads.worker = NULL;
}

bool model_stop(void)
{
    Worker *worker = threads.worker;

    if (worker && qemu_coroutine_self() == worker->co) {
        qemu_coroutine_yield();
        return true;
    }
    return false;
}

void model_schedule(void (*run)(void *), void *opaque)
{
    const Bh bh = { run, opaque };

    if (model.seed != MODEL_NO_BH) {
        g_queue_push_tail(&threads.bhs, g_memdup2(&bh, sizeof(bh)));
    }
}

static void bh_step(void)
{
    g_autofree Bh *bh = g_queue_pop_head(&threads.bhs);

    bh->run(bh->opaque);
}

/* Neither so short that slices grow, nor so long that they shrink. */
int64_t model_now(void)
{
    return threads.now += 600;
}

/* --- the guard's thread --- */

static void coroutine_fn guard_co(void *opaque)
{
    threads.guard_run(NULL);
    threads.guard = NULL;
}

GThread *model_thread_start(void *(*run)(void *))
{
    threads.guard_run = run;
    threads.guard_quits = false;
    threads.guard_sleeps = true;
    threads.guard = qemu_coroutine_create(guard_co, NULL);
    return (GThread *)&threads;
}

void model_thread_join(void)
{
    threads.guard_quits = true;
    while (threads.guard) {
        qemu_coroutine_enter(threads.guard);
    }
}

int model_poll(struct pollfd *fds, int timeout)
{
    threads.guard_timeout = timeout;
    threads.guard_sleeps = false;
    qemu_coroutine_yield();
    fds[0].revents = model_kernel_has_faults() ? POLLIN : 0;
    fds[1].revents = threads.guard_quits ? POLLIN : 0;
    threads.now += MAX(timeout, 0) * 1000;
    return 1;
}

void model_sleep(void)
{
    threads.guard_sleeps = true;
    qemu_coroutine_yield();
    threads.guard_sleeps = false;
}

static bool guard_can(void)
{
    return threads.guard &&
           (threads.guard_sleeps || threads.guard_timeout >= 0 ||
            model_kernel_has_faults());
}

/* --- rogue vCPUs --- */

static unsigned rogue_number(const Rogue *rogue)
{
    return rogue - threads.rogues;
}

static bool rogue_can(const Rogue *rogue)
{
    return *rogue->todo && !model_kernel_waits(rogue_number(rogue));
}

/* It does not overwrite what the guest has; all else it does. */
static void rogue_step(Rogue *rogue)
{
    const unsigned at = *rogue->todo - '0';

    if (model_kernel_access(rogue_number(rogue), at)) {
        if (!model.pages[at].owned) {
            model.pages[at].epoch = model.epoch;
        }
        rogue->todo++;
    }
}

/* --- steps --- */

typedef struct Choice {
    const ModelStep *step;
    Worker *worker;
    Rogue *rogue;
    bool bh;
    bool guard;
} Choice;

static const ModelStep *main_steps;
static void (*check_all)(void);

static unsigned list_threads(Choice *choices)
{
    unsigned nb = 0;

    for (unsigned i = 0; i < NB_WORKERS; i++) {
        if (worker_can(&threads.workers[i])) {
            choices[nb++] = (Choice) { .worker = &threads.workers[i] };
        }
    }
    if (guard_can()) {
        choices[nb++] = (Choice) { .guard = true };
    }
    for (unsigned i = 0; i < MODEL_ROGUES; i++) {
        if (rogue_can(&threads.rogues[i])) {
            choices[nb++] = (Choice) { .rogue = &threads.rogues[i] };
        }
    }
    return nb;
}

static unsigned list_main(Choice *choices, unsigned nb)
{
    const ModelStep *step;

    if (threads.bhs.length) {
        choices[nb++] = (Choice) { .bh = true };
    }
    for (step = main_steps; step->name; step++) {
        if (step->can()) {
            choices[nb++] = (Choice) { .step = step };
        }
    }
    return nb;
}

static void take(const Choice *choice)
{
    if (choice->worker) {
        g_string_append_printf(explorer.log, "worker %d, ",
                               (int)(choice->worker - threads.workers));
        worker_step(choice->worker);
    } else if (choice->rogue) {
        g_string_append_printf(explorer.log, "rogue at %c, ",
                               *choice->rogue->todo);
        rogue_step(choice->rogue);
    } else if (choice->bh) {
        g_string_append(explorer.log, "end of work, ");
        bh_step();
    } else if (choice->guard) {
        g_string_append(explorer.log, "guard, ");
        qemu_coroutine_enter(threads.guard);
    } else {
        g_string_append_printf(explorer.log, "%s, ", choice->step->name);
        choice->step->run();
    }
    model_kernel_tick();
}

/* The main loop waits: the threads go on. */
void model_event_wait(QemuEvent *event)
{
    while (qatomic_read(&event->value)) {
        Choice choices[NB_WORKERS + MODEL_ROGUES + 1];
        const unsigned nb = list_threads(choices);

        if (!nb) {
            model_fail("the main loop waits for ever");
        }
        take(&choices[explorer_choose(nb)]);
    }
    qemu_event_wait(event);
}

void model_run(const ModelStep *main_loop, void (*check)(void))
{
    Choice choices[32];
    unsigned nb, nb_steps = 0;

    main_steps = main_loop;
    check_all = check;
    while ((nb = list_main(choices, list_threads(choices)))) {
        g_assert_cmpuint(nb, <=, ARRAY_SIZE(choices));
        take(&choices[explorer_choose(nb)]);
        check_all();
        if (++nb_steps > MAX_STEPS) {
            model_fail("it never ends");
        }
    }
    for (unsigned i = 0; i < MODEL_ROGUES; i++) {
        if (*threads.rogues[i].todo) {
            model_fail("a vCPU waits for ever");
        }
    }
}

void model_begin(void)
{
    for (unsigned i = 0; i < MODEL_ROGUES; i++) {
        threads.rogues[i] = (Rogue) { model.rogues[i] ?: "" };
    }
    model_kernel_begin();
    model.epoch = 1;
    if (!explorer.log) {
        explorer.log = g_string_new("");
    }
    g_string_truncate(explorer.log, 0);
}

void model_end(void)
{
    g_assert_cmpuint(threads.tasks.length, ==, 0);
    g_assert_cmpuint(threads.bhs.length, ==, 0);
    g_assert_null(threads.guard);
}
