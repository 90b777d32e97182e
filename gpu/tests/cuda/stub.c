/* A CUDA driver that computes nothing: it lets NVRTC compile the kernels where there is no
   GPU, and writes the PTX of each module into a folder. Build: gcc -shared -fPIC.

   STUB_PTX: folder for the PTX. STUB_COMPUTE: compute capability as a two-digit number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef unsigned long long Pointer;

#define DOES_NOTHING(name, ...) \
    Result name(__VA_ARGS__) { return 0; }

static int compute(void) {
    const char *text = getenv("STUB_COMPUTE");
    return text ? atoi(text) : 90;
}

DOES_NOTHING(cuInit, unsigned flags)
Result cuDriverGetVersion(int *v) { *v = 12080; return 0; }
Result cuDeviceGet(int *device, int i) { *device = i; return 0; }
Result cuDeviceGetCount(int *n) { *n = 1; return 0; }
Result cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "stub sm_%d", compute());
    return 0;
}
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
        case 1: case 2: case 3: *value = 1024; break;  /* threads per block, x, y */
        case 4: *value = 64; break;                    /* z */
        case 5: *value = 2147483647; break;            /* grid x */
        case 6: case 7: *value = 65535; break;         /* grid y, z */
        case 8: *value = 49152; break;                 /* shared memory per block */
        case 10: *value = 32; break;                   /* warp */
        case 16: *value = 132; break;                  /* multiprocessors */
        case 75: *value = compute() / 10; break;
        case 76: *value = compute() % 10; break;
        case 81: *value = 233472; break;               /* shared memory per multiprocessor */
        case 97: *value = 163840; break;               /* opt-in shared memory per block */
        default: *value = 1;
    }
    return 0;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
DOES_NOTHING(cuDevicePrimaryCtxRelease_v2, int device)
DOES_NOTHING(cuCtxSetCurrent, void *context)
Result cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
DOES_NOTHING(cuCtxSynchronize, void)
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 80ull << 30; return 0; }
Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    *free_bytes = *total = 80ull << 30;
    return 0;
}
Result cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)2; return 0; }
Result cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    *stream = (void *)2;
    return 0;
}
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return 0;
}
DOES_NOTHING(cuStreamSynchronize, void *stream)
DOES_NOTHING(cuStreamDestroy_v2, void *stream)
DOES_NOTHING(cuStreamWaitEvent, void *stream, void *event, unsigned flags)
DOES_NOTHING(cuStreamQuery, void *stream)
Result cuEventCreate(void **event, unsigned flags) { *event = (void *)3; return 0; }
DOES_NOTHING(cuEventRecord, void *event, void *stream)
DOES_NOTHING(cuEventSynchronize, void *event)
DOES_NOTHING(cuEventDestroy_v2, void *event)
DOES_NOTHING(cuEventQuery, void *event)
Result cuEventElapsedTime(float *ms, void *start, void *end) { *ms = 1; return 0; }
Result cuEventElapsedTime_v2(float *ms, void *start, void *end) { *ms = 1; return 0; }

Result cuModuleLoadData(void **module, const void *image) {
    static int count = 0;
    const char *folder = getenv("STUB_PTX");
    char path[4096];
    snprintf(path, sizeof path, "%s/%03d.ptx", folder ? folder : ".", count++);
    FILE *file = fopen(path, "w");
    if (!file) return 999;
    fputs(image, file);
    fclose(file);
    *module = (void *)4;
    return 0;
}
Result cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = (void *)5;
    return 0;
}
DOES_NOTHING(cuFuncSetAttribute, void *function, int attribute, int value)
DOES_NOTHING(cuLaunchKernel, void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
             unsigned by, unsigned bz, unsigned shared, void *stream, void **params, void **extra)
DOES_NOTHING(cuLaunchKernelEx, void *config, void *function, void **params, void **extra)

Result cuMemAlloc_v2(Pointer *pointer, size_t bytes) {
    *pointer = (Pointer)aligned_alloc(512, (bytes + 511) / 512 * 512);
    return 0;
}
Result cuMemAllocAsync(Pointer *pointer, size_t bytes, void *stream) {
    return cuMemAlloc_v2(pointer, bytes);
}
Result cuMemFree_v2(Pointer pointer) { free((void *)pointer); return 0; }
Result cuMemFreeAsync(Pointer pointer, void *stream) { free((void *)pointer); return 0; }
Result cuMemAllocHost_v2(void **pointer, size_t bytes) {
    *pointer = aligned_alloc(512, (bytes + 511) / 512 * 512);
    return 0;
}
Result cuMemFreeHost(void *pointer) { free(pointer); return 0; }
Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t n, void *stream) {
    memcpy((void *)to, from, n);
    return 0;
}
Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t n, void *stream) {
    memcpy(to, (void *)from, n);
    return 0;
}
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t n, void *stream) {
    memcpy((void *)to, (void *)from, n);
    return 0;
}
DOES_NOTHING(cuMemcpy2DAsync_v2, void *copy, void *stream)
Result cuMemsetD8Async(Pointer to, unsigned char value, size_t n, void *stream) {
    memset((void *)to, value, n);
    return 0;
}
Result cuGetErrorName(int error, const char **text) { *text = "stub"; return 0; }
Result cuGetErrorString(int error, const char **text) { *text = "stub"; return 0; }
Result cuDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; return 0; }
Result cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, 0, 16); return 0; }
Result cuDeviceGetPCIBusId(char *id, int length, int device) {
    strncpy(id, "0000:00:00.0", length);
    return 0;
}
