"use strict";
// Plays film strips: each .player holds one JPEG with all frames of an attempt or an episode, drawn on a canvas one by
// one, with the gripper or the traces of the numbers in step.

const HOLD = 0.8; // seconds that the last frame stays before the film begins again
const GAP = 1; // pixels of the film between two cameras
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

class Player {
  constructor(root) {
    this.root = root;
    this.film = JSON.parse(root.dataset.film);
    this.strip = root.querySelector("img");
    this.canvas = root.querySelector("canvas");
    this.button = root.querySelector("button");
    this.slider = root.querySelector("input");
    this.gripper = root.querySelector(".gripper");
    this.tracks = root.querySelectorAll(".track");
    this.values = root.querySelectorAll(".value");
    this.wanted = !calm;
    this.visible = false;
    this.seconds = 0;
    const height = Math.max(...this.film.cameras.map((camera) => camera.height));
    this.places = this.film.cameras.map((camera) => Math.round((camera.width * height) / camera.height));
    this.canvas.height = height;
    this.canvas.width = this.places.reduce((sum, width) => sum + width + GAP, -GAP);
    this.root.style.setProperty("--ratio", this.canvas.width / this.canvas.height);
    this.slider.max = this.film.steps.length - 1;
    this.button.onclick = () => this.want(!this.wanted);
    this.slider.oninput = () => this.go(this.film.steps[this.slider.valueAsNumber]);
    for (const track of this.tracks) track.onpointerdown = track.onpointermove = (event) => this.point(event);
    this.want(this.wanted);
  }

  see(visible) { // a strip is decoded when it is needed: all at once would fill the memory of a telephone
    this.visible = visible;
    if (visible) this.strip.decode().then(() => this.draw());
  }

  point(event) { // a press on a trace goes to that moment
    if (!event.buttons) return;
    const box = event.currentTarget.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    this.go(share * this.film.steps.at(-1));
  }

  go(step) {
    this.want(false);
    this.seconds = step / this.film.perSecond;
    this.draw();
  }

  get playing() {
    return this.wanted && this.visible;
  }

  want(playing) {
    this.wanted = playing;
    this.root.classList.toggle("playing", playing);
    this.button.setAttribute("aria-label", playing ? "Pause" : "Play");
  }

  advance(seconds) {
    const length = this.film.steps.at(-1) / this.film.perSecond + HOLD;
    this.seconds = (this.seconds + seconds) % length;
    this.draw();
  }

  frame() { // the newest frame that is not later than now
    const step = this.seconds * this.film.perSecond + 1e-6;
    const next = this.film.steps.findIndex((one) => one > step);
    return next < 0 ? this.film.steps.length - 1 : Math.max(0, next - 1);
  }

  draw() {
    const frame = this.frame();
    if (frame === this.drawn || !this.strip.complete) return;
    this.drawn = frame;
    const { columns, width, height, cameras } = this.film;
    const [left, top] = [(frame % columns) * width, Math.floor(frame / columns) * height];
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    let x = 0;
    cameras.forEach((camera, i) => {
      const source = [left + camera.x, top, camera.width, camera.height];
      context.drawImage(this.strip, ...source, x, 0, this.places[i], this.canvas.height);
      x += this.places[i] + GAP;
    });
    this.tell(frame);
  }

  tell(frame) { // what stands beside the picture
    const { steps, unit, perSecond, gripper, values } = this.film;
    this.slider.value = frame;
    const place = `${unit} ${steps[frame]} of ${steps.at(-1)}`;
    const second = unit === "frame" ? `, ${(steps[frame] / perSecond).toFixed(2)} s` : "";
    this.slider.setAttribute("aria-valuetext", place);
    this.root.querySelector(".step").textContent = place + second;
    if (this.gripper) this.gripper.style.setProperty("--open", gripper[frame]);
    for (const track of this.tracks) track.style.setProperty("--at", steps[frame] / (steps.at(-1) || 1));
    this.values.forEach((value, i) => (value.textContent = values[i][frame]));
  }
}

function start() {
  document.documentElement.classList.add("scripted");
  const players = new Map([...document.querySelectorAll(".player")].map((root) => [root, new Player(root)]));
  if (!players.size) return;
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) players.get(entry.target).see(entry.isIntersecting);
  });
  for (const root of players.keys()) observer.observe(root);
  addEventListener("beforeprint", () => players.forEach((player) => player.draw())); // those not seen yet, too

  const all = document.querySelector(".all");
  const show = () => (all.textContent = all.dataset.playing ? "Pause all" : "Play all");
  all.dataset.playing = calm ? "" : "yes";
  show();
  all.onclick = () => {
    all.dataset.playing = all.dataset.playing ? "" : "yes";
    for (const player of players.values()) player.want(Boolean(all.dataset.playing));
    show();
  };

  let before = performance.now();
  const tick = (now) => {
    for (const player of players.values()) if (player.playing) player.advance((now - before) / 1000);
    before = now;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

start();
