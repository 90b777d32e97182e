/*
 * Vulkan loader whose device gets lost. It is named libvulkan.so.1 and found before the real
 * loader, to which it forwards all calls (TAIGA_FLOW_TEST_VULKAN). After the number of submissions
 * in TAIGA_FLOW_TEST_SUBMISSIONS, all submissions fail with VK_ERROR_DEVICE_LOST.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICE_LOST = -4 };

typedef void (*function)(void);
typedef function (*get)(void *, const char *);
typedef int (*submit)(void *, uint32_t, const void *, void *);

static get real_instance, real_device;
static submit real_submit;
static atomic_long submissions;

static int lossy_submit(void *queue, uint32_t count, const void *infos, void *fence)
{
    const char *last = getenv("TAIGA_FLOW_TEST_SUBMISSIONS");
    if (last && atomic_fetch_add(&submissions, 1) >= atol(last))
        return DEVICE_LOST;
    return real_submit(queue, count, infos, fence);
}

static function from_device(void *device, const char *name)
{
    function found = real_device(device, name);
    if (found && strcmp(name, "vkQueueSubmit") == 0) {
        real_submit = (submit)found;
        return (function)lossy_submit;
    }
    return found;
}

function vkGetInstanceProcAddr(void *instance, const char *name)
{
    if (!real_instance) {
        void *real = dlopen(getenv("TAIGA_FLOW_TEST_VULKAN"), RTLD_NOW | RTLD_LOCAL);
        real_instance = real ? (get)dlsym(real, "vkGetInstanceProcAddr") : NULL;
        if (!real_instance)
            return NULL;
    }
    function found = real_instance(instance, name);
    if (found && strcmp(name, "vkGetDeviceProcAddr") == 0) {
        real_device = (get)found;
        return (function)from_device;
    }
    return found;
}
