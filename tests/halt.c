/* Preloaded library that sends a signal to one rank of a job where MPI begins or ends.
 *
 *   HALT=RANK:PLACE:SIGNAL
 *
 * PLACE is
 *   before    before the program starts
 *   init      when it calls MPI_Init
 *   N         N microseconds after MPI_Init, from another thread
 *   finalize  when it calls MPI_Finalize
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char place[32];
static int halt_signal;

static void halt_at(const char *here)
{
    if (!strcmp(place, here)) kill(getpid(), halt_signal);
}

__attribute__((constructor)) static void start(void)
{
    const char *halt = getenv("HALT"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    int victim;
    if (!halt || !rank || sscanf(halt, "%d:%31[^:]:%d", &victim, place, &halt_signal) != 3 || victim != atoi(rank)) {
        place[0] = 0;
        return;
    }
    halt_at("before");
}

static void *later(void *microseconds)
{
    usleep((useconds_t)(long)microseconds);
    kill(getpid(), halt_signal);
    return NULL;
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    int (*real)(int *, char ***, int, int *) = dlsym(RTLD_NEXT, "MPI_Init_thread");
    halt_at("init");
    pthread_t thread;
    if (place[0] >= '0' && place[0] <= '9') pthread_create(&thread, NULL, later, (void *)atol(place));
    return real(argc, argv, required, provided);
}

int MPI_Finalize(void)
{
    int (*real)(void) = dlsym(RTLD_NEXT, "MPI_Finalize");
    halt_at("finalize");
    return real();
}
