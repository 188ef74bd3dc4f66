// A decode step of the language model in five kernels a layer (see __init__.py beside this file).
//
// A step reads every weight once for a few rows (beams times segments), so what counts is to keep the loads of weights
// going. A linear layer gives each block 16 or 32 outputs; its warps share the inputs among them, and each thread asks
// for all of its weights before it does anything else, also before the kernel in front has finished. The products are
// those of tensor cores, with the weights as the left factor and the rows, eight at a time, as the right one.
//
// The stream of the residuals, statistics, sums and logits are float32; weights, keys, values and what goes into a
// product are half precision. Norms are computed where their result is wanted, from the mean and the squared deviations
// of 16 columns at a time, which whoever changes the stream leaves beside it.
//
// Given from outside: WIDTH, HEADS, BEAMS (rows of a segment), ROW_TILES (eights of rows), TILES (sixteens of outputs of a
// block of attention's inputs), CHUNK (slots of the cache that a block attends to, a multiple of 64), STORED (16: float16,
// 17: bfloat16).

#define HEAD_SIZE (WIDTH / HEADS)
#define ROWS (8 * ROW_TILES)
#define GROUP 16  // columns that share their statistics
#define GROUPS (WIDTH / GROUP)
#define NORM_EPSILON 1e-5f

#include "half.cuh"

#if STORED == 16
#define MMA_TYPES "f16.f16"
#else
#define MMA_TYPES "bf16.bf16"
#endif

// Weights are read once: they need no place in the first cache. What other kernels have written is read from the second.
__device__ inline Eight load_weights(const Eight* from) {
    Eight e;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(e.pairs[0]), "=r"(e.pairs[1]), "=r"(e.pairs[2]), "=r"(e.pairs[3])
                 : "l"(from));
    return e;
}
__device__ inline Eight load(const Eight* from) {
    Eight e;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(e.pairs[0]), "=r"(e.pairs[1]), "=r"(e.pairs[2]), "=r"(e.pairs[3])
                 : "l"(from));
    return e;
}
__device__ inline float4 load(const float4* from) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(from));
    return v;
}
__device__ inline float2 load(const float2* from) {
    float2 v;
    asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(from));
    return v;
}
__device__ inline float load(const float* from) {
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(from));
    return v;
}

// Kernels are launched before the one in front has finished. From here on, what that one has written is there.
__device__ inline void wait_for_the_one_in_front() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void let_the_next_one_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <int STEP>
__device__ inline float sum_over(float value, int below) {
#pragma unroll
    for (int distance = STEP; distance < below; distance *= 2) value += __shfl_xor_sync(~0u, value, distance);
    return value;
}
__device__ inline float warp_sum(float value) { return sum_over<1>(value, 32); }

// Mean and squared deviations of the columns of a group, one in each lane; the first of them writes.
__device__ inline void note_statistics(float value, float2* statistics, bool writes) {
    const float mean = sum_over<1>(value, GROUP) / GROUP;
    const float deviations = sum_over<1>((value - mean) * (value - mean), GROUP);
    if (writes) *statistics = make_float2(mean, deviations);
}

// ------------------------------------------------------------------------------------------------- what goes into a layer

// Each kind of input tells how to load 8 columns of a row (begin, for the products of all blocks before the first is
// computed) and what to make of them (finish). early is what does not depend on the kernel in front.

// Rows in half precision as they are, [rows, IN].
template <int IN>
struct Plain {
    using Raw = Eight;
    const stored_t* x;
    int rows;
    __device__ void early() {}
    __device__ void prepare() {}
    __device__ Raw begin(int row, int column) const {
        return row < rows ? load((const Eight*)(x + (long)row * IN + column)) : Eight{};
    }
    __device__ Eight finish(const Raw& raw, int, int) const { return raw; }
};

struct NormedShared {
    float means[ROWS], scales[ROWS];
    Eight gains[WIDTH / 8], offsets[WIDTH / 8];
};

// The normed stream: x [rows, WIDTH] in float32 with its statistics [rows, GROUPS].
struct Normed {
    struct Raw {
        float4 first, second;
    };
    const float* x;
    const float2* statistics;
    const stored_t *gain, *offset;
    int rows;
    NormedShared& shared;

    __device__ void early() {
        for (int i = threadIdx.x; i < WIDTH / 8; i += blockDim.x) {
            shared.gains[i] = load_weights((const Eight*)gain + i);
            shared.offsets[i] = load_weights((const Eight*)offset + i);
        }
    }
    __device__ void prepare() {
        const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
        for (int row = threadIdx.x / 32; row < rows; row += warps) {
            constexpr int EACH = (GROUPS + 31) / 32;
            float2 found[EACH];
            float mean = 0.0f, deviations = 0.0f;
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                const int group = lane + 32 * i;
                found[i] = group < GROUPS ? load(statistics + row * GROUPS + group) : make_float2(0.0f, 0.0f);
                mean += found[i].x;
            }
            mean = warp_sum(mean) / GROUPS;
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                const float apart = lane + 32 * i < GROUPS ? found[i].x - mean : 0.0f;
                deviations += found[i].y + GROUP * apart * apart;
            }
            deviations = warp_sum(deviations);
            if (lane == 0) {
                shared.means[row] = mean;
                shared.scales[row] = rsqrtf(deviations / WIDTH + NORM_EPSILON);
            }
        }
        __syncthreads();
    }
    __device__ Raw begin(int row, int column) const {
        if (row >= rows) return Raw{};
        const float4* from = (const float4*)(x + (long)row * WIDTH + column);
        return Raw{load(from), load(from + 1)};
    }
    __device__ Eight finish(const Raw& raw, int row, int column) const {
        Eight eight{};
        if (row >= rows) return eight;
        const float values[8] = {raw.first.x,  raw.first.y,  raw.first.z,  raw.first.w,
                                 raw.second.x, raw.second.y, raw.second.z, raw.second.w};
        const float mean = shared.means[row], scale = shared.scales[row];
        float gains[8], offsets[8], y[8];
        widen(shared.gains[column / 8], gains);
        widen(shared.offsets[column / 8], offsets);
#pragma unroll
        for (int i = 0; i < 8; ++i) y[i] = (values[i] - mean) * scale * gains[i] + offsets[i];
#pragma unroll
        for (int i = 0; i < 4; ++i) eight.pairs[i] = narrow(y[2 * i], y[2 * i + 1]);
        return eight;
    }
};

// ------------------------------------------------------------------------------------------------- a linear layer

__device__ inline void multiply_add(
    float (&sums)[4], pair_t a0, pair_t a1, pair_t a2, pair_t a3, pair_t b0, pair_t b1
) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." MMA_TYPES ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Calls output(row, column, value) for 16 * OUTPUT_TILES columns and all rows, neighbouring columns in neighbouring lanes,
// whole warps at a time: also for rows and columns that there are not. weight is [outputs, IN]. addend(row, column) is
// what the product is added to.
//
// A product of tensor cores takes 16 columns of both factors, in an order that does not matter as long as it is the same
// for both. So each thread takes 8 neighbouring ones, which are one load, and feeds them to two products.
template <int IN, int OUTPUT_TILES, int WARPS, typename Input, typename Addend, typename Output>
__device__ void linear(const stored_t* weight, int outputs, Input input, Addend addend, Output output) {
    constexpr int BLOCKS = IN / 32, EACH = (BLOCKS + WARPS - 1) / WARPS, THREADS = 32 * WARPS;
    constexpr int RESULTS = ROWS * 16 * OUTPUT_TILES, OWN = (RESULTS + THREADS - 1) / THREADS;
    __shared__ float parts[WARPS][OUTPUT_TILES * ROW_TILES * 128];
    __shared__ float sums_of_rows[ROWS][16 * OUTPUT_TILES + 1];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, quad = lane / 4, part = lane % 4;
    const int first_output = blockIdx.x * 16 * OUTPUT_TILES, first_block = warp * EACH;

    Eight weights[EACH][OUTPUT_TILES][2];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int block = min(first_block + i, BLOCKS - 1);
#pragma unroll
        for (int tile = 0; tile < OUTPUT_TILES; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int column = min(first_output + 16 * tile + 8 * half + quad, outputs - 1);
                weights[i][tile][half] = load_weights((const Eight*)(weight + (long)column * IN + 32 * block + 8 * part));
            }
    }
    input.early();
    let_the_next_one_start();
    wait_for_the_one_in_front();

    // All rows are asked for at once, unless that takes too many registers.
    constexpr int AT_ONCE = sizeof(typename Input::Raw) / 4 * EACH * ROW_TILES <= 64 ? ROW_TILES : 1;
    typename Input::Raw raw[AT_ONCE][EACH];
    float sums[OUTPUT_TILES][ROW_TILES][4] = {}, addends[OWN];
#pragma unroll
    for (int rows = 0; rows < ROW_TILES; ++rows) {
        const int row = 8 * rows + quad;
        if (rows % AT_ONCE == 0)
#pragma unroll
            for (int ahead = 0; ahead < AT_ONCE; ++ahead)
#pragma unroll
                for (int i = 0; i < EACH; ++i)
                    raw[ahead][i] = input.begin(row + 8 * ahead, 32 * min(first_block + i, BLOCKS - 1) + 8 * part);
        if (rows == 0) {
#pragma unroll
            for (int own = 0; own < OWN; ++own) {
                const int i = min((int)threadIdx.x + own * THREADS, RESULTS - 1);
                addends[own] = addend(i / (16 * OUTPUT_TILES), min(first_output + i % (16 * OUTPUT_TILES), outputs - 1));
            }
            input.prepare();
        }
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            if (EACH * WARPS > BLOCKS && first_block + i >= BLOCKS) break;
            const Eight x = input.finish(raw[rows % AT_ONCE][i], row, 32 * (first_block + i) + 8 * part);
#pragma unroll
            for (int tile = 0; tile < OUTPUT_TILES; ++tile) {
                const pair_t *a = weights[i][tile][0].pairs, *b = weights[i][tile][1].pairs;
                multiply_add(sums[tile][rows], a[0], b[0], a[1], b[1], x.pairs[0], x.pairs[1]);
                multiply_add(sums[tile][rows], a[2], b[2], a[3], b[3], x.pairs[2], x.pairs[3]);
            }
        }
    }
#pragma unroll
    for (int tile = 0; tile < OUTPUT_TILES; ++tile)
#pragma unroll
        for (int rows = 0; rows < ROW_TILES; ++rows)
#pragma unroll
            for (int c = 0; c < 4; ++c) parts[warp][((tile * ROW_TILES + rows) * 4 + c) * 32 + lane] = sums[tile][rows][c];
    __syncthreads();
    for (int i = threadIdx.x; i < OUTPUT_TILES * ROW_TILES * 128; i += THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += parts[w][i];
        const int from_lane = i % 32, c = i / 32 % 4, rows = i / 128 % ROW_TILES, tile = i / 128 / ROW_TILES;
        sums_of_rows[8 * rows + from_lane % 4 * 2 + c % 2][16 * tile + from_lane / 4 + c / 2 * 8] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int own = 0; own < OWN; ++own) {
        const int i = threadIdx.x + own * THREADS, row = i / (16 * OUTPUT_TILES), column = i % (16 * OUTPUT_TILES);
        if (i < RESULTS) output(row, first_output + column, sums_of_rows[row][column] + addends[own]);
    }
}

// ------------------------------------------------------------------------------------------------- the kernels

// Embeddings of the codes fed, [rows, WIDTH], with their statistics. A block is a row.
extern "C" __global__ void embed(
    const long long* codes, const long long* position, const stored_t* code_table, const stored_t* position_table, float* x,
    float2* statistics
) {
    let_the_next_one_start();
    wait_for_the_one_in_front();
    const long row = blockIdx.x;
    const stored_t *code = code_table + codes[row] * WIDTH, *place = position_table + position[0] * WIDTH;
    for (int first = 0; first < WIDTH; first += blockDim.x) {
        const int column = first + threadIdx.x;
        const bool is_one = column < WIDTH;
        const float value = is_one ? widen(code[column]) + widen(place[column]) : 0.0f;
        if (is_one) x[row * WIDTH + column] = value;
        note_statistics(value, statistics + row * GROUPS + column / GROUP, is_one && column % GROUP == 0);
    }
}

// Queries [rows, WIDTH] of the normed stream, and its keys and values into the slots of the cache, which is
// [segments, HEADS, capacity, HEAD_SIZE] for each. The slots of the beams follow each other.
extern "C" __global__ void __launch_bounds__(256, 2) attention_inputs(
    const float* x, const float2* statistics, const stored_t* gain, const stored_t* offset, const stored_t* weight,
    const stored_t* bias, stored_t* queries, stored_t* keys, stored_t* values, const long long* slots, int rows, int capacity
) {
    __shared__ NormedShared shared;
    const long long first_slot = slots[0];
    linear<WIDTH, TILES, 8>(
        weight, 3 * WIDTH, Normed{x, statistics, gain, offset, rows, shared},
        [=](int, int column) { return widen(bias[column]); },
        [=](int row, int column, float value) {
            if (row >= rows) return;
            const stored_t result = narrow(value);
            if (column < WIDTH) {
                queries[row * WIDTH + column] = result;
                return;
            }
            stored_t* cache = column < 2 * WIDTH ? keys : values;
            const int head = column % WIDTH / HEAD_SIZE, dimension = column % HEAD_SIZE;
            const long place = ((long)(row / BEAMS) * HEADS + head) * capacity + first_slot + row % BEAMS;
            cache[place * HEAD_SIZE + dimension] = result;
        }
    );
}

// The stream grows by a linear layer of rows in half precision.
template <int IN, int WARPS>
__device__ void add_linear(
    const stored_t* input, const stored_t* weight, const stored_t* bias, float* x, float2* statistics, int rows
) {
    linear<IN, 1, WARPS>(
        weight, WIDTH, Plain<IN>{input, rows},
        [=](int row, int column) {
            return row < rows ? widen(bias[column]) + load((const float*)x + (long)row * WIDTH + column) : 0.0f;
        },
        [=](int row, int column, float value) {
            const bool is_one = row < rows;
            if (is_one) x[(long)row * WIDTH + column] = value;
            note_statistics(value, statistics + row * GROUPS + column / GROUP, is_one && column % GROUP == 0);
        }
    );
}
extern "C" __global__ void __launch_bounds__(256, 2) attention_output(
    const stored_t* input, const stored_t* weight, const stored_t* bias, float* x, float2* statistics, int rows
) {
    add_linear<WIDTH, 8>(input, weight, bias, x, statistics, rows);
}
extern "C" __global__ void __launch_bounds__(512) feed_forward_output(
    const stored_t* input, const stored_t* weight, const stored_t* bias, float* x, float2* statistics, int rows
) {
    add_linear<4 * WIDTH, 16>(input, weight, bias, x, statistics, rows);
}

// The inner half of the feed-forward, [rows, 4 WIDTH], through the tanh-approximated GELU.
extern "C" __global__ void __launch_bounds__(256, 2) feed_forward_input(
    const float* x, const float2* statistics, const stored_t* gain, const stored_t* offset, const stored_t* weight,
    const stored_t* bias, stored_t* inner, int rows
) {
    __shared__ NormedShared shared;
    linear<WIDTH, 2, 8>(
        weight, 4 * WIDTH, Normed{x, statistics, gain, offset, rows, shared},
        [=](int, int column) { return widen(bias[column]); },
        [=](int row, int column, float value) {
            if (row >= rows) return;
            const float bent = 0.7978845608028654f * (value + 0.044715f * value * value * value);
            inner[(long)row * 4 * WIDTH + column] = narrow(0.5f * value * (1.0f + tanhf(bent)));
        }
    );
}

// Mean over the block of 256 threads of a row in shared memory, and of its squared deviations from center.
__device__ inline float block_mean(const float* row, float center, bool squared, float* parts) {
    float sum = 0.0f;
    for (int column = threadIdx.x; column < WIDTH; column += 256) {
        const float apart = row[column] - center;
        sum += squared ? apart * apart : apart;
    }
    sum = warp_sum(sum);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int warp = 0; warp < 8; ++warp) sum += parts[warp];
    return sum / WIDTH;
}

// The norm of the trunk and that of the head, one after the other. A block is a row.
extern "C" __global__ void __launch_bounds__(256) final_norms(
    const float* x, const stored_t* gain1, const stored_t* offset1, const stored_t* gain2, const stored_t* offset2,
    stored_t* normed
) {
    __shared__ float row[WIDTH], parts[8];
    let_the_next_one_start();
    wait_for_the_one_in_front();
    for (int column = threadIdx.x; column < WIDTH; column += 256) row[column] = load(x + (long)blockIdx.x * WIDTH + column);
    __syncthreads();
    for (int norm = 0; norm < 2; ++norm) {
        const float mean = block_mean(row, 0.0f, false, parts);
        const float scale = rsqrtf(block_mean(row, mean, true, parts) + NORM_EPSILON);
        const stored_t *gain = norm ? gain2 : gain1, *offset = norm ? offset2 : offset1;
        for (int column = threadIdx.x; column < WIDTH; column += 256)
            row[column] = (row[column] - mean) * scale * widen(gain[column]) + widen(offset[column]);
        __syncthreads();
    }
    for (int column = threadIdx.x; column < WIDTH; column += 256)
        normed[(long)blockIdx.x * WIDTH + column] = narrow(row[column]);
}

// Logits [rows, codes] in float32.
extern "C" __global__ void __launch_bounds__(256, 2) code_logits(
    const stored_t* normed, const stored_t* weight, const stored_t* bias, float* logits, int rows, int codes
) {
    linear<WIDTH, 2, 8>(
        weight, codes, Plain<WIDTH>{normed, rows}, [=](int, int column) { return widen(bias[column]); },
        [=](int row, int column, float value) {
            if (row < rows && column < codes) logits[(long)row * codes + column] = value;
        }
    );
}

// Attention of the beams of a segment over the slots of the cache that are in use, as far as visibility (0, or minus
// infinity) shows them. A block has CHUNK slots of a head of a segment; each of its warps has 16 at a time, of which
// tensor cores make scores and mixtures, with the beams as rows. The last block to finish puts the chunks together, in
// their order. counters [segments, HEADS] are zero before and after. partial is
// [segments, HEADS, chunks, BEAMS, HEAD_SIZE + 2]: the mixed values, the largest score, the sum of weights.
//
// In the products for the scores, columns of both factors may be in any order, if it is the same (see linear). In those
// for the mixtures, the order of the dimensions is free: a lane takes 8 neighbouring ones of four slots.
extern "C" __global__ void __launch_bounds__(128) attend(
    const stored_t* queries, const stored_t* keys, const stored_t* values, const stored_t* visibility, stored_t* mixed,
    float* partial, int* counters, const long long* slots, int capacity, int segment_stride, int beam_stride
) {
    constexpr int WARPS = 4, SLICES = CHUNK / 16 / WARPS, RECORD = HEAD_SIZE + 2;
    const float nothing = -__int_as_float(0x7f800000);
    __shared__ float most[WARPS][BEAMS], weight_sums[WARPS][BEAMS], mixtures[WARPS][BEAMS][HEAD_SIZE];
    __shared__ bool is_last;
    const int chunk = blockIdx.x, head = blockIdx.y, segment = blockIdx.z;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, quad = lane / 4, part = lane % 4;
    let_the_next_one_start();
    // The slots, and all that is older than this step, were there before the first kernel of the step.
    const int first_new = (int)slots[0], used = first_new + BEAMS, chunks = (used + CHUNK - 1) / CHUNK;
    if (chunk >= chunks) return;

    const int first = chunk * CHUNK + warp * 16 * SLICES;
    const long cache = ((long)segment * HEADS + head) * capacity * HEAD_SIZE;
    Eight k[SLICES][2][2], v[SLICES][4], q[2];
    auto load_cache = [&]() {
#pragma unroll
        for (int slice = 0; slice < SLICES; ++slice) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int eighth = first + 16 * slice + i / 2 * 8, key = eighth + quad, value = eighth + 2 * part + i % 2;
                k[slice][i / 2][i % 2] =
                    load((const Eight*)(keys + cache + (long)min(key, used - 1) * HEAD_SIZE + 32 * (i % 2) + 8 * part));
                v[slice][i] = load((const Eight*)(values + cache + (long)min(value, used - 1) * HEAD_SIZE + 8 * quad));
            }
        }
    };
    const bool is_old = first + 16 * SLICES <= first_new;
    if (is_old) load_cache();
    float scores[SLICES][2][4];
#pragma unroll
    for (int i = 0; i < 2 * SLICES; ++i) {
        const int slot = first + 8 * i + 2 * part;
        const bool is_one = quad < BEAMS && slot < used;
        const stored_t* shown = visibility + (long)segment * segment_stride + (long)quad * beam_stride + slot;
        const pair_t pair = is_one ? *(const pair_t*)shown : 0;
        scores[i / 2][i % 2][0] = is_one ? low(pair) : nothing;
        scores[i / 2][i % 2][1] = is_one && slot + 1 < used ? high(pair) : nothing;
    }
    wait_for_the_one_in_front();
    const long row = (long)segment * BEAMS + quad;
#pragma unroll
    for (int i = 0; i < 2; ++i)
        q[i] = quad < BEAMS ? load((const Eight*)(queries + row * WIDTH + head * HEAD_SIZE + 32 * i + 8 * part)) : Eight{};
    if (!is_old) load_cache();

    float largest = nothing;
#pragma unroll
    for (int slice = 0; slice < SLICES; ++slice)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float products[4] = {};
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const pair_t *a = q[i].pairs, *b = k[slice][half][i].pairs;
                multiply_add(products, a[0], 0, a[1], 0, b[0], b[1]);
                multiply_add(products, a[2], 0, a[3], 0, b[2], b[3]);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                scores[slice][half][i] += products[i] * rsqrtf((float)HEAD_SIZE);
                largest = fmaxf(largest, scores[slice][half][i]);
            }
        }
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    const float base = largest == nothing ? 0.0f : largest;  // of slots that the beam does not see
    float weights = 0.0f, mixture[8][4] = {};
#pragma unroll
    for (int slice = 0; slice < SLICES; ++slice) {
        float p[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) weights += p[i] = __expf(scores[slice][i / 2][i % 2] - base);
        const pair_t a0 = narrow(p[0], p[1]), a2 = narrow(p[2], p[3]);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned which = i % 2 ? 0x7632 : 0x5410;
            const pair_t b0 = __byte_perm(v[slice][0].pairs[i / 2], v[slice][1].pairs[i / 2], which);
            const pair_t b1 = __byte_perm(v[slice][2].pairs[i / 2], v[slice][3].pairs[i / 2], which);
            multiply_add(mixture[i], a0, 0, a2, 0, b0, b1);
        }
    }
    weights = sum_over<1>(weights, 4);
    if (quad < BEAMS) {
        if (part == 0) most[warp][quad] = largest, weight_sums[warp][quad] = weights;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            mixtures[warp][quad][16 * part + i] = mixture[i][0];
            mixtures[warp][quad][16 * part + 8 + i] = mixture[i][1];
        }
    }
    __syncthreads();
    float* records = partial + ((long)segment * HEADS + head) * gridDim.x * BEAMS * RECORD;
    for (int i = threadIdx.x; i < BEAMS * HEAD_SIZE; i += 128) {
        const int beam = i / HEAD_SIZE, d = i % HEAD_SIZE;
        float top = nothing, weight = 0.0f, value = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) top = fmaxf(top, most[w][beam]);
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            const float share = top == nothing ? 0.0f : __expf(most[w][beam] - top);
            weight += share * weight_sums[w][beam];
            value += share * mixtures[w][beam][d];
        }
        if (chunks == 1) {
            mixed[((long)segment * BEAMS + beam) * WIDTH + head * HEAD_SIZE + d] = narrow(value / weight);
            continue;
        }
        float* record = records + ((long)chunk * BEAMS + beam) * RECORD;
        record[d] = value;
        if (d == 0) record[HEAD_SIZE] = top, record[HEAD_SIZE + 1] = weight;
    }
    if (chunks == 1) return;
    __threadfence();
    __syncthreads();
    int* counter = counters + segment * HEADS + head;
    if (threadIdx.x == 0) is_last = atomicAdd(counter, 1) == chunks - 1;
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    if (threadIdx.x == 0) *counter = 0;
    for (int i = threadIdx.x; i < BEAMS * HEAD_SIZE; i += 128) {
        const int beam = i / HEAD_SIZE, d = i % HEAD_SIZE;
        const float* record = records + beam * RECORD;
        float top = nothing, weight = 0.0f, value = 0.0f;
#pragma unroll 8
        for (int c = 0; c < chunks; ++c) top = fmaxf(top, load(record + (long)c * BEAMS * RECORD + HEAD_SIZE));
#pragma unroll 8
        for (int c = 0; c < chunks; ++c) {
            const float* one = record + (long)c * BEAMS * RECORD;
            const float share = __expf(load(one + HEAD_SIZE) - top);
            weight += share * load(one + HEAD_SIZE + 1);
            value += share * load(one + d);
        }
        mixed[((long)segment * BEAMS + beam) * WIDTH + head * HEAD_SIZE + d] = narrow(value / weight);
    }
}
