// What passes over the frames of the flow between its products, each in one kernel (see indextts/models/dit.py and
// wavenet.py). Arithmetic is float32; what goes into a product, and comes out of it, is half precision.
//
// Given from outside: WIDTH, HEADS, STORED (16: float16, 17: bfloat16), STREAM_SCALE.

#define HEAD_SIZE (WIDTH / HEADS)
#define NORM_EPSILON 1e-5f

#include "half.cuh"

__device__ inline Eight narrow(const float (&values)[8]) {
    Eight eight;
#pragma unroll
    for (int i = 0; i < 4; ++i) eight.pairs[i] = narrow(values[2 * i], values[2 * i + 1]);
    return eight;
}
__device__ inline void read(const float* from, float (&values)[8]) {
    const float4 a = ((const float4*)from)[0], b = ((const float4*)from)[1];
    values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
    values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
}
__device__ inline void read(const stored_t* from, float (&values)[8]) { widen(*(const Eight*)from, values); }
__device__ inline void write(float* to, const float (&values)[8]) {
    ((float4*)to)[0] = make_float4(values[0], values[1], values[2], values[3]);
    ((float4*)to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}

// Turns the pairs (2i, 2i + 1) of queries and keys, in place, by the rotary angles [2, frames, HEAD_SIZE]: cosines, and
// sines that are negative in the even columns. qkv is [rows, frames, 3, HEADS, HEAD_SIZE]; a thread has 8 columns.
extern "C" __global__ void rotate(stored_t* qkv, const float* rotary, int frames, int total) {
    constexpr int EIGHTS = 2 * WIDTH / 8;
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    const int place = i / EIGHTS, eighth = i % EIGHTS;
    const long angle = (long)(place % frames) * HEAD_SIZE + eighth * 8 % HEAD_SIZE;
    stored_t* at = qkv + (long)place * 3 * WIDTH + 8 * eighth;
    float x[8], cosines[8], sines[8], y[8];
    read((const stored_t*)at, x);
    read(rotary + angle, cosines);
    read(rotary + (long)frames * HEAD_SIZE + angle, sines);
#pragma unroll
    for (int c = 0; c < 8; ++c) y[c] = x[c] * cosines[c] + x[c ^ 1] * sines[c];
    *(Eight*)at = narrow(y);
}

// The adaptive norm of a frame, by a warp: gain * x / rms(x) * weight + offset, where x may grow by delta before. Rows of
// x are x_stride apart, so that its first frames can be left out; what comes out is [rows, frames, WIDTH].
template <bool ADDS>
__device__ void norm_frame(
    const float* x, const stored_t* delta, const float* weight, const float* modulation, float* grown, stored_t* normed,
    int frames, int x_stride, int modulation_stride, int total
) {
    constexpr int EACH = WIDTH / 256;
    const int place = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (place >= total) return;
    const int row = place / frames, frame = place % frames;
    const float* from = x + (long)row * x_stride + (long)frame * WIDTH;
    const float* gain = modulation + (long)row * modulation_stride;
    float values[EACH][8], squares = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int column = 256 * i + 8 * lane;
        read(from + column, values[i]);
        if (ADDS) {
            float more[8];
            read(delta + (long)place * WIDTH + column, more);
#pragma unroll
            for (int c = 0; c < 8; ++c) values[i][c] += more[c];
            write(grown + (long)place * WIDTH + column, values[i]);
        }
#pragma unroll
        for (int c = 0; c < 8; ++c) squares += values[i][c] * values[i][c];
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) squares += __shfl_xor_sync(~0u, squares, distance);
    const float scale = rsqrtf(squares / WIDTH + NORM_EPSILON);
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int column = 256 * i + 8 * lane;
        float weights[8], gains[8], offsets[8];
        read(weight + column, weights);
        read(gain + column, gains);
        read(gain + WIDTH + column, offsets);
#pragma unroll
        for (int c = 0; c < 8; ++c) values[i][c] = offsets[c] + gains[c] * (values[i][c] * scale * weights[c]);
        *(Eight*)(normed + (long)place * WIDTH + column) = narrow(values[i]);
    }
}
extern "C" __global__ void adaptive_norm(
    const float* x, const float* weight, const float* modulation, stored_t* normed, int frames, int x_stride,
    int modulation_stride, int total
) {
    norm_frame<false>(x, nullptr, weight, modulation, nullptr, normed, frames, x_stride, modulation_stride, total);
}
extern "C" __global__ void add_adaptive_norm(
    const float* x, const stored_t* delta, const float* weight, const float* modulation, float* grown, stored_t* normed,
    int frames, int x_stride, int modulation_stride, int total
) {
    norm_frame<true>(x, delta, weight, modulation, grown, normed, frames, x_stride, modulation_stride, total);
}

// silu(a) * b * STREAM_SCALE, into a. A thread has 8 numbers.
extern "C" __global__ void gate_by_silu(stored_t* a, const stored_t* b, int total) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    float x[8], y[8];
    read((const stored_t*)a + 8l * i, x);
    read(b + 8l * i, y);
#pragma unroll
    for (int c = 0; c < 8; ++c) x[c] = x[c] / (1.0f + __expf(-x[c])) * y[c] * STREAM_SCALE;
    ((Eight*)a)[i] = narrow(x);
}

// tanh(x + bias) of the first WIDTH channels times sigmoid of it of the others: x [rows, 2 WIDTH, frames], bias
// [2 WIDTH], y [rows, WIDTH, frames]. A block has up to 256 frames of a channel of a row.
extern "C" __global__ void gate_by_sigmoid(const stored_t* x, const stored_t* bias, stored_t* y, int frames) {
    const int frame = blockIdx.x * 256 + threadIdx.x, channel = blockIdx.y;
    if (frame >= frames) return;
    const long row = blockIdx.z, first = (row * 2 * WIDTH + channel) * frames + frame;
    const float a = widen(x[first]) + widen(bias[channel]);
    const float b = widen(x[first + (long)WIDTH * frames]) + widen(bias[WIDTH + channel]);
    y[(row * WIDTH + channel) * frames + frame] = (stored_t)(narrow(tanhf(a) / (1.0f + __expf(-b)), 0.0f) & 0xffff);
}
