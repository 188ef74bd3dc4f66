// Plays the chunks of a running synthesis one after the other, without gaps, as they arrive.
// `play` is told of the latest chunks again and again and plays each of them once. A name such as 0012-pause600.wav
// asks for 600 ms of silence behind the chunk. Speech that comes faster than it is played is not fetched all at once.
window.indexttsPlayer = {
  context: null, // AudioContext
  played: new Set(), // URLs
  ends_s: 0, // context time at which all that is scheduled has been played
  ahead_s: 60, // how much may be scheduled ahead of what is heard
  queue: Promise.resolve(),

  // Called by the click on the button: browsers allow sound only after one.
  start() {
    this.stop();
    this.context = new AudioContext();
    this.played.clear();
    this.ends_s = 0;
  },

  stop() {
    if (this.context) this.context.close();
    this.context = null;
  },

  play(files, wanted) {
    if (!wanted || !this.context) return;
    for (const { url, orig_name } of files ?? []) {
      const pause_s = Number(orig_name?.match(/-pause(\d+)\.wav$/)?.[1] ?? 0) / 1000;
      if (this.played.has(url)) continue;
      this.played.add(url);
      this.queue = this.queue.then(() => this.schedule(url, pause_s, this.context)).catch(console.error);
    }
  },

  async schedule(url, pause_s, context) {
    while (context && context === this.context && this.ends_s - context.currentTime > this.ahead_s) {
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    if (!context || context !== this.context) return;
    const response = await fetch(url);
    const bytes = await response.arrayBuffer();
    if (context !== this.context) return; // cancelled or restarted meanwhile
    const source = context.createBufferSource();
    source.buffer = await context.decodeAudioData(bytes);
    source.connect(context.destination);
    const at_s = Math.max(context.currentTime + 0.05, this.ends_s);
    source.start(at_s);
    this.ends_s = at_s + source.buffer.duration + pause_s;
  },
};
