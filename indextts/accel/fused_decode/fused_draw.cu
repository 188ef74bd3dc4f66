// From logits to drawn codes in two kernels (see indextts/decoding/logits.py and candidates of a search for the same in
// PyTorch). The first one filters a row, and leaves the few scores that pass in a list; the second one draws from the
// lists of all beams of a segment.
//
// Given from outside: CODES (the vocabulary), BEAMS, DRAWN (codes drawn for a segment).

#define THREADS 1024
#define WARPS (THREADS / 32)
#define EACH ((CODES + THREADS - 1) / THREADS)
#define LIST (BEAMS > 2 ? 2048 / BEAMS : 1024)  // scores of a row that can pass; more only if so many equal the last one
#define NOTHING (-__int_as_float(0x7f800000))

struct Sum {
    static __device__ float of(float a, float b) { return a + b; }
    static __device__ float none() { return 0.0f; }
};
struct Most {
    static __device__ float of(float a, float b) { return fmaxf(a, b); }
    static __device__ float none() { return NOTHING; }
};

// Over all threads of the block, for all of them.
template <typename Op, int ALL>
__device__ float over_block(float value) {
    __shared__ float parts[32];
    for (int distance = 16; distance > 0; distance /= 2) value = Op::of(value, __shfl_xor_sync(~0u, value, distance));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = threadIdx.x % 32 < ALL / 32 ? parts[threadIdx.x % 32] : Op::none();
    for (int distance = 16; distance > 0; distance /= 2) value = Op::of(value, __shfl_xor_sync(~0u, value, distance));
    return value;
}

// How many threads in front of this one have counted, and in total all.
__device__ int count_in_front(int count, int& total) {
    __shared__ int parts[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int up_to = count;
    for (int distance = 1; distance < 32; distance *= 2) {
        const int other = __shfl_up_sync(~0u, up_to, distance);
        if (lane >= distance) up_to += other;
    }
    __syncthreads();
    if (lane == 31) parts[warp] = up_to;
    __syncthreads();
    int in_front = up_to - count;
    total = 0;
    for (int w = 0; w < WARPS; ++w) {
        if (w < warp) in_front += parts[w];
        total += parts[w];
    }
    return in_front;
}

__device__ int count_over_block(int count) {
    __shared__ int parts[WARPS];
    count = __reduce_add_sync(~0u, count);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = count;
    __syncthreads();
    return __reduce_add_sync(~0u, parts[threadIdx.x % 32]);
}

// A number that grows with the value.
__device__ unsigned key_of(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// A block is a row: logits, and seen (1: in the history), [rows, CODES]. Writes scores and codes [rows, LIST], and how
// many there are.
extern "C" __global__ void __launch_bounds__(THREADS) filter_row(
    const float* logits, const unsigned char* seen, float* passed_scores, int* passed_codes, int* passed, float penalty,
    float temperature, int top_k, float top_p, int at_least, int banned
) {
    __shared__ float scores[LIST], masses[LIST];
    __shared__ int codes[LIST];
    const long row = (long)blockIdx.x * CODES;
    float values[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int code = threadIdx.x + i * THREADS;
        values[i] = code < CODES ? logits[row + code] : NOTHING;
    }
#if BEAMS > 1
    float most = NOTHING, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; ++i) most = fmaxf(most, values[i]);
    most = over_block<Most, THREADS>(most);
#pragma unroll
    for (int i = 0; i < EACH; ++i) sum += expf(values[i] - most);
    const float shift = most + logf(over_block<Sum, THREADS>(sum));
#pragma unroll
    for (int i = 0; i < EACH; ++i) values[i] -= shift;
#endif
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int code = threadIdx.x + i * THREADS;
        if (code >= CODES || code == banned) {
            values[i] = NOTHING;
            continue;
        }
        if (seen[row + code]) values[i] = values[i] < 0.0f ? values[i] * penalty : values[i] / penalty;
        values[i] /= temperature;
    }
    // The largest key that at least top_k values reach is that of the last of the best.
    unsigned threshold = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const unsigned higher = threshold | 1u << bit;
        int reach = 0;
    #pragma unroll
    for (int i = 0; i < EACH; ++i) reach += key_of(values[i]) >= higher;
        if (count_over_block(reach) >= top_k) threshold = higher;
    }
    int own = 0, total;
#pragma unroll
    for (int i = 0; i < EACH; ++i) own += values[i] > NOTHING && key_of(values[i]) >= threshold;
    int place = count_in_front(own, total);
#pragma unroll
    for (int i = 0; i < EACH; ++i)
        if (values[i] > NOTHING && key_of(values[i]) >= threshold && place < LIST) {
            scores[place] = values[i];
            codes[place] = threadIdx.x + i * THREADS;
            ++place;
        }
    __syncthreads();
    const int count = min(total, LIST), j = threadIdx.x;
    float score = j < count ? scores[j] : NOTHING;
    const float top = over_block<Most, THREADS>(score);
    if (j < count) masses[j] = expf(score - top);
    const float all = over_block<Sum, THREADS>(j < count ? masses[j] : 0.0f);
    __syncthreads();
    if (j < count) {
        // The mass of all that are not better, and how many are better; of equal ones the one with the higher code is.
        float mass = 0.0f;
        int better = 0;
        for (int k = 0; k < count; ++k) {
            const bool is_better = scores[k] > score || (scores[k] == score && codes[k] > codes[j]);
            if (is_better)
                ++better;
            else
                mass += masses[k];
        }
        if (top_p < 1.0f && mass / all <= 1.0f - top_p && better >= at_least) score = NOTHING;
        passed_scores[(long)blockIdx.x * LIST + j] = score;
        passed_codes[(long)blockIdx.x * LIST + j] = codes[j];
    }
    if (j == 0) passed[blockIdx.x] = count;
}

// A block is a segment: draws DRAWN entries of its lists without replacement. noise is [segments, BEAMS * CODES], running
// [segments, BEAMS] what the scores of a beam are added to. Writes the sums and the entries (beam * CODES + code)
// [segments, DRAWN], largest sums first.
extern "C" __global__ void __launch_bounds__(256) draw(
    const float* passed_scores, const int* passed_codes, const int* passed, const float* running, const float* noise,
    float* best, long long* entries
) {
    __shared__ float sums[BEAMS * LIST], race[BEAMS * LIST];
    __shared__ int which[BEAMS * LIST], starts[BEAMS + 1];
    __shared__ float winner_values[8];
    __shared__ int winner_places[8], drawn[DRAWN];
    const long segment = blockIdx.x;
    if (threadIdx.x == 0) {
        starts[0] = 0;
        for (int beam = 0; beam < BEAMS; ++beam) starts[beam + 1] = starts[beam] + passed[segment * BEAMS + beam];
    }
    __syncthreads();
    float top = NOTHING, mass = 0.0f;
    for (int beam = 0; beam < BEAMS; ++beam)
        for (int i = threadIdx.x; i < starts[beam + 1] - starts[beam]; i += 256) {
            const long from = (segment * BEAMS + beam) * LIST + i;
            const int place = starts[beam] + i;
            sums[place] = passed_scores[from] + (BEAMS > 1 ? running[segment * BEAMS + beam] : 0.0f);
            which[place] = beam * CODES + passed_codes[from];
            top = fmaxf(top, sums[place]);
        }
    __syncthreads();
    top = over_block<Most, 256>(top);
    const int count = starts[BEAMS];
    if (threadIdx.x == 0 && count == 0) sums[0] = NOTHING, which[0] = 0;  // of scores that are not numbers
    for (int i = threadIdx.x; i < count; i += 256) mass += race[i] = expf(sums[i] - top);
    mass = over_block<Sum, 256>(mass);
    // What has been filtered out lost before the race: it comes after all that could only not win.
    for (int i = threadIdx.x; i < count; i += 256)
        race[i] = sums[i] > NOTHING ? race[i] / mass / noise[segment * BEAMS * CODES + which[i]] : -1.0f;
    __syncthreads();
    for (int round = 0; round < DRAWN; ++round) {
        float value = NOTHING;
        int place = 0;
        for (int i = threadIdx.x; i < count; i += 256)
            if (race[i] > value) value = race[i], place = i;
        for (int distance = 16; distance > 0; distance /= 2) {
            const float other = __shfl_xor_sync(~0u, value, distance);
            const int there = __shfl_xor_sync(~0u, place, distance);
            if (other > value || (other == value && there < place)) value = other, place = there;
        }
        if (threadIdx.x % 32 == 0) winner_values[threadIdx.x / 32] = value, winner_places[threadIdx.x / 32] = place;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int w = 1; w < 8; ++w)
                if (winner_values[w] > value || (winner_values[w] == value && winner_places[w] < place))
                    value = winner_values[w], place = winner_places[w];
            drawn[round] = place;
            race[place] = NOTHING;
        }
        __syncthreads();
    }
    if (threadIdx.x < DRAWN) {
        const int place = drawn[threadIdx.x];
        int rank = 0;
        for (int i = 0; i < DRAWN; ++i)
            rank += sums[drawn[i]] > sums[place] || (sums[drawn[i]] == sums[place] && i < threadIdx.x);
        best[segment * DRAWN + rank] = sums[place];
        entries[segment * DRAWN + rank] = which[place];
    }
}
