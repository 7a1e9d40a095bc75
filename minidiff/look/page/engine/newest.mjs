// Only the newest of many wishes.

/**
 * A function that runs `work` once at a time. Called meanwhile, it remembers the newest request
 * only: while a slider is dragged nothing queues up. Resolves when nothing is left to do.
 */
export function newestOnly(work) {
  let next = null,
    running = null;
  const run = async () => {
    try {
      while (next) {
        const request = next;
        next = null;
        await work(...request);
      }
    } finally {
      running = null;
    }
  };
  return (...request) => {
    next = request;
    return (running ??= run());
  };
}
