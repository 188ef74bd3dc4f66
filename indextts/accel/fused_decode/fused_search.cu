// The half of a decode step that is the search's: from logits to chosen codes in two kernels (for the same in PyTorch,
// see indextts/decoding/logits.py, and choose of both searches), and one that shows the slots of the cache to the beams.
// The first kernel filters a row, and leaves the few scores that pass in a list; the second one draws from the lists of
// all beams of a segment, and notes what that means for them.
//
// Given from outside: CODES (the vocabulary), BEAMS, DRAWN (codes drawn for a segment: 1, or twice the beams).

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
template <typename Op>
__device__ float over_block(float value) {
    __shared__ float parts[32];
    for (int distance = 16; distance > 0; distance /= 2) value = Op::of(value, __shfl_xor_sync(~0u, value, distance));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = parts[threadIdx.x % 32];
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

__device__ uint2 count_over_block(unsigned first, unsigned second) {
    __shared__ uint2 parts[WARPS];
    first = __reduce_add_sync(~0u, first);
    second = __reduce_add_sync(~0u, second);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = make_uint2(first, second);
    __syncthreads();
    const uint2 part = parts[threadIdx.x % 32];
    return make_uint2(__reduce_add_sync(~0u, part.x), __reduce_add_sync(~0u, part.y));
}

// A number that grows with the value.
__device__ unsigned key_of(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// A block is a row: logits, and seen (true: in the history), [rows, CODES]. Writes scores and codes [rows, LIST], how many
// there are, and whether the row has logits that are not finite.
extern "C" __global__ void __launch_bounds__(THREADS) filter_row(
    const float* logits, const bool* seen, float* passed_scores, int* passed_codes, int* passed, int* undefined,
    float penalty, float temperature, unsigned top_k, float top_p, int at_least, int banned
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
    float most = NOTHING;
    bool is_wrong = false;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        most = fmaxf(most, values[i]);
        is_wrong |= values[i] != values[i];
    }
    most = over_block<Most>(most);
    is_wrong = __syncthreads_or(is_wrong) || isinf(most);
    if (threadIdx.x == 0) undefined[blockIdx.x] = is_wrong;
#if BEAMS > 1
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; ++i) sum += expf(values[i] - most);
    const float shift = most + logf(over_block<Sum>(sum));
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
    for (int shift = 30; shift >= 0; shift -= 2) {
        // Two bits a round. Counts are below 2^15, so that two of them fit a number.
        unsigned first_two = 0, third = 0;
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const unsigned key = key_of(values[i]);
            first_two += (key >= (threshold | 1u << shift)) + ((unsigned)(key >= (threshold | 2u << shift)) << 16);
            third += key >= (threshold | 3u << shift);
        }
        const uint2 reach = count_over_block(first_two, third);
        if (reach.y >= top_k)
            threshold |= 3u << shift;
        else if (reach.x >> 16 >= top_k)
            threshold |= 2u << shift;
        else if ((reach.x & 0xffff) >= top_k)
            threshold |= 1u << shift;
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
    const float top = over_block<Most>(score);
    if (j < count) masses[j] = expf(score - top);
    const float all = over_block<Sum>(j < count ? masses[j] : 0.0f);
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

// What is drawn for a segment.
struct Drawn {
    float best[DRAWN];  // sums of scores, largest first
    int entries[DRAWN];  // beam * CODES + code
};

// Draws DRAWN entries of the lists of a segment without replacement, by all threads of a block. noise is
// [segments, BEAMS * CODES], running [segments, BEAMS] what the scores of a beam are added to, if there are several.
__device__ void draw(
    const float* passed_scores, const int* passed_codes, const int* passed, const float* running, const float* noise,
    Drawn& drawn
) {
    __shared__ float sums[BEAMS * LIST], race[BEAMS * LIST];
    __shared__ int which[BEAMS * LIST], starts[BEAMS + 1];
    __shared__ float winner_values[WARPS];
    __shared__ int winner_places[WARPS], winners[DRAWN];
    const long segment = blockIdx.x;
    if (threadIdx.x == 0) {
        starts[0] = 0;
        for (int beam = 0; beam < BEAMS; ++beam) starts[beam + 1] = starts[beam] + passed[segment * BEAMS + beam];
    }
    __syncthreads();
    float top = NOTHING, mass = 0.0f;
    for (int beam = 0; beam < BEAMS; ++beam)
        for (int i = threadIdx.x; i < starts[beam + 1] - starts[beam]; i += THREADS) {
            const long from = (segment * BEAMS + beam) * LIST + i;
            const int place = starts[beam] + i;
            const float sum = passed_scores[from] + (BEAMS > 1 ? running[segment * BEAMS + beam] : 0.0f);
            sums[place] = sum == sum ? sum : NOTHING;  // a NaN could not be ranked
            which[place] = beam * CODES + passed_codes[from];
            top = fmaxf(top, sums[place]);
        }
    top = over_block<Most>(top);
    const int count = starts[BEAMS];
    if (threadIdx.x == 0 && count == 0) sums[0] = NOTHING, which[0] = 0;  // of scores that are not numbers
    for (int i = threadIdx.x; i < count; i += THREADS) mass += race[i] = expf(sums[i] - top);
    mass = over_block<Sum>(mass);
    // What has been filtered out comes after all that could only not win.
    for (int i = threadIdx.x; i < count; i += THREADS)
        race[i] = sums[i] > NOTHING ? race[i] / mass / noise[segment * BEAMS * CODES + which[i]] : -1.0f;
    __syncthreads();
    for (int round = 0; round < DRAWN; ++round) {
        float value = NOTHING;
        int place = 0;
        for (int i = threadIdx.x; i < count; i += THREADS)
            if (race[i] > value) value = race[i], place = i;
        for (int distance = 16; distance > 0; distance /= 2) {
            const float other = __shfl_xor_sync(~0u, value, distance);
            const int there = __shfl_xor_sync(~0u, place, distance);
            if (other > value || (other == value && there < place)) value = other, place = there;
        }
        if (threadIdx.x % 32 == 0) winner_values[threadIdx.x / 32] = value, winner_places[threadIdx.x / 32] = place;
        __syncthreads();
        if (threadIdx.x < 32) {
            value = winner_values[threadIdx.x], place = winner_places[threadIdx.x];
            for (int distance = 16; distance > 0; distance /= 2) {
                const float other = __shfl_xor_sync(~0u, value, distance);
                const int there = __shfl_xor_sync(~0u, place, distance);
                if (other > value || (other == value && there < place)) value = other, place = there;
            }
            if (threadIdx.x == 0) winners[round] = place, race[place] = NOTHING;
        }
        __syncthreads();
    }
    if (threadIdx.x < DRAWN) {
        const int place = winners[threadIdx.x];
        int rank = 0;
        for (int i = 0; i < DRAWN; ++i)
            rank += sums[winners[i]] > sums[place] || (sums[winners[i]] == sums[place] && i < (int)threadIdx.x);
        drawn.best[rank] = sums[place];
        drawn.entries[rank] = which[place];
    }
    __syncthreads();
}

#if BEAMS > 1
// A block is a segment of a BeamSearch, whose tensors these are.
extern "C" __global__ void __launch_bounds__(THREADS) choose_beams(
    const float* passed_scores, const int* passed_codes, const int* passed, const int* undefined_rows, const float* noise,
    float* running, float* finished, long long* finished_entry, long long* codes, long long* continued, bool* seen,
    long long* trace, long long* step, bool* done, long long* done_after, bool* undefined, int limit, int stop_code,
    float length_penalty
) {
    __shared__ Drawn drawn;
    __shared__ int parents[BEAMS], chosen[BEAMS];
    draw(passed_scores, passed_codes, passed, running, noise, drawn);
    const long segment = blockIdx.x, first = segment * BEAMS;
    if (threadIdx.x == 0) {
        bool is_undefined = false, is_done = done[segment];
        for (int beam = 0; beam < BEAMS; ++beam) is_undefined |= undefined_rows[first + beam] != 0;
        if (is_undefined && !is_done) undefined[segment] = is_done = true;
        const long now = step[segment];
        const float length = powf((float)(now + 1), length_penalty);

        // Only a stop code among the first candidates ends its hypothesis. Equal scores: the older stays.
        float pool[2 * BEAMS];
        long long entries[2 * BEAMS];
        for (int i = 0; i < 2 * BEAMS; ++i) {
            const bool is_old = i < BEAMS, stops = !is_old && drawn.entries[i - BEAMS] % CODES == stop_code;
            const float score = is_old ? finished[first + i] : stops && !is_done ? drawn.best[i - BEAMS] / length : NOTHING;
            const long long entry = is_old ? finished_entry[first + i] : now * BEAMS + i - BEAMS;
            int place = i;
            for (; place > 0 && pool[place - 1] < score; --place)
                pool[place] = pool[place - 1], entries[place] = entries[place - 1];
            pool[place] = score, entries[place] = entry;
        }
        // The others go on: the first candidates without a stop code, of which there are always enough.
        int beam = 0;
        for (int stopped = 0; stopped < 2; ++stopped)
            for (int i = 0; i < DRAWN && beam < BEAMS; ++i) {
                const int code = drawn.entries[i] % CODES;
                if ((code == stop_code) != (stopped == 1)) continue;
                running[first + beam] = drawn.best[i];
                codes[first + beam] = chosen[beam] = code;
                continued[first + beam] = parents[beam] = drawn.entries[i] / CODES;
                ++beam;
            }
        long long* traced = trace + (segment * limit + now) * 3 * BEAMS;
        for (int i = 0; i < BEAMS; ++i) {
            finished[first + i] = pool[i];
            finished_entry[first + i] = entries[i];
            traced[i] = chosen[i];
            traced[BEAMS + i] = parents[i];
            traced[2 * BEAMS + i] = drawn.entries[i] / CODES;
        }
        if (!is_done) ++done_after[segment];
        // An empty place holds minus infinity, and is never as good as the best candidate.
        done[segment] = is_done || pool[BEAMS - 1] >= drawn.best[0] / length;
        step[segment] = now + 1;
    }
    __syncthreads();
    for (int code = threadIdx.x; code < CODES; code += THREADS) {
        bool history[BEAMS];
#pragma unroll
        for (int beam = 0; beam < BEAMS; ++beam) history[beam] = seen[(first + parents[beam]) * CODES + code];
#pragma unroll
        for (int beam = 0; beam < BEAMS; ++beam) seen[(first + beam) * CODES + code] = history[beam] || chosen[beam] == code;
    }
}
#else
// A block is a segment of a Sampling, whose tensors these are.
extern "C" __global__ void __launch_bounds__(THREADS) choose_one(
    const float* passed_scores, const int* passed_codes, const int* passed, const int* undefined_rows, const float* noise,
    long long* codes, bool* seen, long long* history, long long* step, bool* done, long long* done_after, bool* undefined,
    int limit, int stop_code
) {
    __shared__ Drawn drawn;
    draw(passed_scores, passed_codes, passed, nullptr, noise, drawn);
    if (threadIdx.x != 0) return;
    const long segment = blockIdx.x;
    bool is_done = done[segment];
    if (undefined_rows[segment] && !is_done) undefined[segment] = is_done = true;
    const int code = is_done ? stop_code : drawn.entries[0];
    codes[segment] = code;
    history[segment * limit + step[segment]] = code;
    seen[segment * CODES + code] = true;
    if (!is_done) ++done_after[segment];
    done[segment] = is_done || code == stop_code;
    ++step[segment];
}
#endif

// What the beams of a segment see of the slots of the cache, visibility [segments, BEAMS, length] in half precision with
// these strides: what the beams saw that they continue, and each its own of the slots from slot[0] on. A thread has two
// neighbouring slots.
extern "C" __global__ void show(
    unsigned* visibility, const long long* parents, const long long* slot, int segment_stride, int beam_stride, int length,
    int hidden
) {
    const int column = 2 * (blockIdx.x * blockDim.x + threadIdx.x), segment = blockIdx.y;
    if (column >= length) return;
    unsigned pairs[BEAMS];
#pragma unroll
    for (int beam = 0; beam < BEAMS; ++beam) {
        const long from = BEAMS > 1 ? parents[segment * BEAMS + beam] : 0;
        pairs[beam] = visibility[((long)segment * segment_stride + from * beam_stride + column) / 2];
    }
#pragma unroll
    for (int beam = 0; beam < BEAMS; ++beam) {
        unsigned short sides[2] = {(unsigned short)(pairs[beam] & 0xffff), (unsigned short)(pairs[beam] >> 16)};
        for (int side = 0; side < 2; ++side) {
            const long own = column + side - slot[0];
            if (own >= 0 && own < BEAMS) sides[side] = own == beam ? 0 : (unsigned short)hidden;
        }
        const long to = ((long)segment * segment_stride + (long)beam * beam_stride + column) / 2;
        visibility[to] = sides[0] | (unsigned)sides[1] << 16;
    }
}
