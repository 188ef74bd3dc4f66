// Numbers in half precision, one, two or eight of them at a time. Given from outside: STORED (16: float16, 17: bfloat16).

#pragma once

typedef unsigned pair_t;  // two numbers in half precision
typedef unsigned short stored_t;
struct alignas(16) Eight {
    pair_t pairs[4];
};

#if STORED == 16
__device__ inline float widen(stored_t bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ inline pair_t narrow(float low, float high) {
    pair_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
#else
__device__ inline float widen(stored_t bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ inline pair_t narrow(float low, float high) {
    pair_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
#endif

__device__ inline float low(pair_t pair) { return widen((stored_t)(pair & 0xffff)); }
__device__ inline float high(pair_t pair) { return widen((stored_t)(pair >> 16)); }
__device__ inline stored_t narrow(float value) { return (stored_t)(narrow(value, 0.0f) & 0xffff); }

__device__ inline void widen(const Eight& stored, float (&values)[8]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        values[2 * i] = low(stored.pairs[i]);
        values[2 * i + 1] = high(stored.pairs[i]);
    }
}
