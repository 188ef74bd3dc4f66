// Enough of CUDA for the CPU to run a kernel of several warps: a thread of the CPU for each of the GPU, whose collective
// operations meet at barriers. Slow, and exact.

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)
#define INFINITY_BITS 0x7f800000

using std::max;
using std::min;

struct Index {
    int x, y, z;
};
struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;

struct Warp {
    std::barrier<> barrier{32};
    unsigned values[32][8];
};
static std::vector<std::unique_ptr<Warp>> warps;
static std::unique_ptr<std::barrier<>> block_barrier;

inline Warp& own_warp() { return *warps[threadIdx.x / 32]; }
inline void __syncthreads() { block_barrier->arrive_and_wait(); }
inline void __threadfence() {}
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int atomicAdd(int* place, int more) { return __atomic_fetch_add(place, more, __ATOMIC_SEQ_CST); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
    const std::uint64_t both = (std::uint64_t)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= (unsigned)(both >> 8 * (which >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}
inline float __shfl_xor_sync(unsigned, float value, int distance) {
    Warp& warp = own_warp();
    const int lane = threadIdx.x % 32;
    warp.values[lane][0] = std::bit_cast<unsigned>(value);
    warp.barrier.arrive_and_wait();
    const float result = std::bit_cast<float>(warp.values[lane ^ distance][0]);
    warp.barrier.arrive_and_wait();
    return result;
}

// What the source says in assembler, in bfloat16.
typedef unsigned pair_t;
typedef unsigned short stored_t;
struct alignas(16) Eight {
    pair_t pairs[4];
};
inline float widen(stored_t bits) { return __uint_as_float((unsigned)bits << 16); }
inline pair_t narrow(float low, float high) {
    auto round = [](float value) {
        const unsigned bits = std::bit_cast<unsigned>(value);
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}
inline Eight load_weights(const Eight* from) { return *from; }
template <typename T>
inline T load(const T* from) {
    return *from;
}
inline void wait_for_the_one_in_front() {}
inline void let_the_next_one_start() {}
inline void multiply_add(float (&sums)[4], pair_t a0, pair_t a1, pair_t a2, pair_t a3, pair_t b0, pair_t b1) {
    Warp& warp = own_warp();
    const int lane = threadIdx.x % 32, quad = lane / 4, part = lane % 4;
    const pair_t own[6] = {a0, a1, a2, a3, b0, b1};
    std::copy(own, own + 6, warp.values[lane]);
    warp.barrier.arrive_and_wait();
    auto side = [](pair_t pair, int which) { return widen((stored_t)(which ? pair >> 16 : pair & 0xffff)); };
    auto a = [&](int row, int k) { return side(warp.values[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k % 2); };
    auto b = [&](int k, int column) { return side(warp.values[column * 4 + k % 8 / 2][4 + k / 8], k % 2); };
    for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 16; ++k) sums[i] += a(quad + i / 2 * 8, k) * b(k, 2 * part + i % 2);
    warp.barrier.arrive_and_wait();
}

template <typename Kernel>
void launch(Index blocks, int threads, Kernel kernel) {
    gridDim = blocks;
    blockDim = {threads, 1, 1};
    warps.clear();
    for (int i = 0; i < threads / 32; ++i) warps.push_back(std::make_unique<Warp>());
    for (int z = 0; z < blocks.z; ++z)
        for (int y = 0; y < blocks.y; ++y)
            for (int x = 0; x < blocks.x; ++x) {
                block_barrier = std::make_unique<std::barrier<>>(threads);
                std::vector<std::thread> running;
                for (int thread = 0; thread < threads; ++thread)
                    running.emplace_back([=] {
                        blockIdx = {x, y, z};
                        threadIdx = {thread, 0, 0};
                        kernel();
                    });
                for (auto& thread : running) thread.join();
            }
}
