// SnakeBeta between a 2x up- and a 2x down-sampler, in one pass over memory (see indextts/models/snake.py).
//
// A thread makes OUTPUTS neighbouring samples of one channel. It reads them and five on either side, and holds the
// doubled signal in registers as its even and its odd samples: OUTPUTS + 5 of each, of which neighbours make the 5
// twice. All arithmetic is in float32. Given from outside: OUTPUTS, the 12 TAPS, STORED (32: float, 16: half,
// 17: bfloat16).

#if STORED == 32
typedef float stored_t;
__device__ inline float widen(stored_t value) { return value; }
__device__ inline stored_t narrow(float value) { return value; }
#elif STORED == 16
typedef unsigned short stored_t;
__device__ inline float widen(stored_t bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ inline stored_t narrow(float value) {
    stored_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#else
typedef unsigned short stored_t;
__device__ inline float widen(stored_t bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ inline stored_t narrow(float value) {
    unsigned bits = __float_as_uint(value);
    return (stored_t)(value == value ? (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 : 0x7fc0);  // to the nearest, or NaN
}
#endif

#define HALF_TAPS 6
#define REACH 5  // samples needed on either side
#define DOUBLED (OUTPUTS + HALF_TAPS - 1)

__device__ inline long clamped(long index, long frames) {
    return index < 0 ? 0 : (index < frames ? index : frames - 1);
}

__device__ inline float snake(float value, float frequency, float inverse_magnitude) {
    // The argument is brought into one period first, where the fast sine is exact to 1e-6.
    float turns = value * frequency * 0.15915494309189535f;
    float sine = __sinf((turns - rintf(turns)) * 6.283185307179586f);
    return value + sine * sine * inverse_magnitude;
}

extern "C" __global__ void fused_snake(
    const stored_t* __restrict__ x, const float* __restrict__ alpha, const float* __restrict__ beta,
    stored_t* __restrict__ y, int channels, int frames, int blocks_per_row
) {
    const float taps[2 * HALF_TAPS] = {TAPS};
    const long row = blockIdx.x / blocks_per_row;
    const long first = ((long)(blockIdx.x % blocks_per_row) * blockDim.x + threadIdx.x) * OUTPUTS;
    if (first >= frames) return;
    x += row * frames;
    y += row * frames;
    const int channel = row % channels;
    const float frequency = expf(alpha[channel]);
    const float inverse_magnitude = 1.0f / (expf(beta[channel]) + 1e-9f);

    float window[OUTPUTS + 2 * REACH];
#pragma unroll
    for (int i = 0; i < OUTPUTS + 2 * REACH; ++i) window[i] = widen(x[clamped(first - REACH + i, frames)]);

    float even[DOUBLED], odd[DOUBLED];  // from sample first - 2, and from sample first - 3
#pragma unroll
    for (int j = 0; j < DOUBLED; ++j) {
        float e = 0.0f, o = 0.0f;
#pragma unroll
        for (int i = 0; i < HALF_TAPS; ++i) {
            e += 2.0f * taps[2 * i] * window[j + i];
            o += 2.0f * taps[2 * i + 1] * window[j + i];
        }
        even[j] = snake(e, frequency, inverse_magnitude);
        odd[j] = snake(o, frequency, inverse_magnitude);
    }

    if (first < 3 || first + OUTPUTS + 2 >= frames) {
        // The activated signal counts as constant beyond its ends.
        float begin = 0.0f, end = 0.0f;
        for (int i = 0; i < HALF_TAPS; ++i) {
            begin += 2.0f * taps[2 * i] * widen(x[clamped(i - 3, frames)]);
            end += 2.0f * taps[2 * i + 1] * widen(x[clamped(frames - 1L + i - 2, frames)]);
        }
        begin = snake(begin, frequency, inverse_magnitude);
        end = snake(end, frequency, inverse_magnitude);
#pragma unroll
        for (int j = 0; j < DOUBLED; ++j) {
            if (first - 2 + j < 0) even[j] = begin;
            if (first - 3 + j < 0) odd[j] = begin;
            if (first - 2 + j >= frames) even[j] = end;
            if (first - 3 + j >= frames) odd[j] = end;
        }
    }

#pragma unroll
    for (int k = 0; k < OUTPUTS; ++k) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < HALF_TAPS; ++i) sum += taps[2 * i] * odd[k + i] + taps[2 * i + 1] * even[k + i];
        if (first + k < frames) y[first + k] = narrow(sum);
    }
}
