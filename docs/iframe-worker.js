// A browser starts no worker for a page that was opened from the disk. Search gets a hidden frame in its place,
// which has the same interface: `postMessage`, `onmessage`, `importScripts` and events.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.inside = frame.contentWindow;
      this.ready = new Promise((resolve) => {
        const place = frame.contentDocument;
        const first = place.createElement("script");
        first.textContent = `
          postMessage = (data) => parent.dispatchEvent(new MessageEvent("message", {data, source: window}));
          importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done) => {
            const script = document.createElement("script");
            script.src = url;
            script.onload = done;
            document.body.appendChild(script);
          })), Promise.resolve());`;
        place.body.appendChild(first);
        const work = place.createElement("script");
        work.src = url;
        work.onload = resolve;
        place.body.appendChild(work);
      });
      window.addEventListener("message", (event) => {
        if (event.source !== this.inside) return;
        const message = new MessageEvent("message", {data: event.data});
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", {data})));
    }

    terminate() {}
  };
}
