// The page's side of a worker: a promise for each request.

import WORKER from "worker-source"; // the text of worker.mjs and all it imports; see build.mjs

export class Engine {
  constructor() {
    const address = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
    this.worker = new Worker(address); // a Blob's, since a page from a file may start no other
    URL.revokeObjectURL(address);
    this.waiting = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    this.worker.onerror = ({ message }) => {
      for (const { reject } of this.waiting.values()) reject(new Error(message));
      this.waiting.clear();
    };
  }

  ask(type, request = {}) {
    return new Promise((resolve, reject) => {
      this.waiting.set(++this.count, { resolve, reject });
      this.worker.postMessage({ id: this.count, type, ...request });
    });
  }

  close() {
    this.worker.terminate();
  }
}
