// A table that is wider than the page scrolls in a frame of its own: the frame says so, and the keyboard reaches it.
// A table that fits needs neither.

const frames = document.querySelectorAll(".scroll");

function measure() {
  for (const frame of frames) {
    const wide = frame.scrollWidth > frame.clientWidth + 1;
    frame.classList.toggle("wide", wide);
    frame.tabIndex = wide ? 0 : -1;
  }
}

addEventListener("resize", measure);
measure();
