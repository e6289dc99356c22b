"use strict";
// Plays film strips: each .player holds one JPEG with all frames of an attempt, drawn frame by frame on a canvas.

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
    this.wanted = !calm;
    this.visible = false;
    this.seconds = 0;
    const height = Math.max(...this.film.cameras.map((camera) => camera.height));
    this.places = this.film.cameras.map((camera) => Math.round((camera.width * height) / camera.height));
    this.canvas.height = height;
    this.canvas.width = this.places.reduce((sum, width) => sum + width + GAP, -GAP);
    this.slider.max = this.film.steps.length - 1;
    this.button.onclick = () => this.want(!this.wanted);
    this.slider.oninput = () => {
      this.want(false);
      this.seconds = this.film.steps[this.slider.valueAsNumber] / this.film.perSecond;
      this.draw();
    };
    this.strip.decode().then(() => this.draw());
    this.want(this.wanted);
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
    const { columns, width, height, cameras, steps, gripper } = this.film;
    const [left, top] = [(frame % columns) * width, Math.floor(frame / columns) * height];
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    let x = 0;
    cameras.forEach((camera, i) => {
      const source = [left + camera.x, top, camera.width, camera.height];
      context.drawImage(this.strip, ...source, x, 0, this.places[i], this.canvas.height);
      x += this.places[i] + GAP;
    });
    this.slider.value = frame;
    this.slider.setAttribute("aria-valuetext", `look ${steps[frame]} of ${steps.at(-1)}`);
    this.gripper.style.setProperty("--open", gripper[frame]);
    this.root.querySelector(".step").textContent = steps[frame];
  }
}

function start() {
  document.documentElement.classList.add("scripted");
  const players = new Map([...document.querySelectorAll(".player")].map((root) => [root, new Player(root)]));
  if (!players.size) return;
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) players.get(entry.target).visible = entry.isIntersecting;
  });
  for (const root of players.keys()) observer.observe(root);

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
