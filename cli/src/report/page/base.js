'use strict';
// Elements, numbers for people, the tooltip.

const NAMESPACE = 'http://www.w3.org/2000/svg';
const byId = (id) => document.getElementById(id);

function showError(error) {
  const place = byId('error');
  place.hidden = false;
  place.textContent += `This report could not be drawn: ${error && error.stack || error}\n`;
}
window.addEventListener('error', (event) => showError(event.error || event.message));
window.addEventListener('unhandledrejection', (event) => showError(event.reason));

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'tip') setTip(element, value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null));
  return element;
}

/** An HTML element; attributes that begin with `on` are listeners, `tip` is text or a function. */
function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(NAMESPACE, tag), attributes, children);
}

function round(value, digits = 3) {
  if (value === 0) return '0';
  const magnitude = Math.floor(Math.log10(Math.abs(value))) + 1;
  return value.toFixed(Math.min(Math.max(digits - magnitude, 0), 6));
}

/** With a prefix of 1000s: `scaled(5.3e12, 'B/s')` is `5.30 TB/s`. */
function scaled(value, unit) {
  const prefixes = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
  let at = 0;
  while (Math.abs(value) >= 999.5 && at + 1 < prefixes.length) { value /= 1000; at += 1; }
  return `${round(value)} ${prefixes[at]}${unit}`;
}

function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (value >= 1023.95 && at + 1 < units.length) { value /= 1024; at += 1; }
  return `${at === 0 ? value : value.toFixed(value < 99.95 ? 1 : 0)} ${units[at]}`;
}

function seconds(value) {
  if (value === 0) return '0';
  if (value < 0.9995e-9) return `${round(value * 1e12)} ps`;
  if (value < 0.9995e-6) return `${round(value * 1e9)} ns`;
  if (value < 0.9995e-3) return `${round(value * 1e6)} µs`;
  if (value < 0.9995) return `${round(value * 1e3)} ms`;
  return `${round(value)} s`;
}

const integer = (value) => value.toLocaleString('en-US').replaceAll(',', '\u202f');
const plural = (count, noun) => `${integer(count)} ${noun}${count === 1 ? '' : 's'}`;
const percent = (part, whole) => whole > 0 ? `${(100 * part / whole).toFixed(1)}%` : '–';
const sum = (values) => values.reduce((total, value) => total + value, 0);

// ---------------------------------------------------------------- tooltip

function setTip(element, text) {
  const show = (event) => {
    const tip = byId('tip');
    tip.textContent = typeof text === 'function' ? text() : text;
    tip.hidden = false;
    const box = element.getBoundingClientRect();
    const x = event.type === 'focus' ? box.left : event.clientX;
    const y = event.type === 'focus' ? box.bottom : event.clientY;
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(x + 14, window.innerWidth - width - 8);
    const below = y + 16 + height < window.innerHeight;
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${below ? y + 14 : Math.max(y - height - 10, 4)}px`;
  };
  const hide = () => { byId('tip').hidden = true; };
  element.addEventListener('pointermove', show);
  element.addEventListener('pointerleave', hide);
  element.addEventListener('focus', show);
  element.addEventListener('blur', hide);
}

/** One of `marks` takes part in the order of the Tab key; arrow keys go to the others. */
function roving(marks) {
  marks.forEach((mark, index) => {
    mark.setAttribute('tabindex', index === 0 ? 0 : -1);
    mark.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const to = event.key === 'Home' ? 0 : event.key === 'End' ? marks.length - 1 : index + step;
      if (event.key === 'Enter' || event.key === ' ') {
        mark.dispatchEvent(new MouseEvent('click', { bubbles: true }));
        event.preventDefault();
      }
      if (!marks[to]) return;
      event.preventDefault();
      mark.setAttribute('tabindex', -1);
      marks[to].setAttribute('tabindex', 0);
      marks[to].focus();
    });
  });
}

// ---------------------------------------------------------------- tables, tabs, sections

/** Rows of cells under titles. Titles that begin with `>` are of columns of numbers. */
function table(titles, rows, attributes) {
  const right = titles.map((title) => title.startsWith('>'));
  const head = titles.map((title, at) =>
    el('th', { scope: 'col', class: right[at] && 'n' }, title.replace(/^>/, '')));
  const cell = (value, at) => value instanceof HTMLTableCellElement ? value
    : at === 0 ? el('th', { scope: 'row' }, value)
    : el('td', { class: right[at] && 'n' }, value);
  const body = rows.map((row) => el('tr', {}, row.map(cell)));
  return el('table', attributes, el('thead', {}, el('tr', {}, head)), el('tbody', {}, body));
}

/** A bar that takes `share` of its track. */
function bar(share, color) {
  const width = `width:${(100 * Math.min(Math.max(share, 0), 1)).toFixed(2)}%`;
  return el('span', { class: 'track' },
    el('span', { class: 'bar', style: `${width};background:${color || 'var(--accent)'}` }));
}

/** Buttons of which one is pressed. */
function tabs(label, names, pressed, choose) {
  const buttons = names.map((name) => el('button', {
    type: 'button',
    'aria-pressed': String(name === pressed),
    onclick: () => {
      buttons.forEach((button) => button.setAttribute('aria-pressed', String(button.textContent === name)));
      choose(name);
    },
  }, name));
  return el('div', { class: 'tabs', role: 'group', 'aria-label': label }, buttons);
}

/** A section of the page; `draw` gives its content and is called again when the view changes. */
function section(id, title, draw) {
  const content = el('div', {});
  const element = el('section', { id, 'aria-labelledby': `${id}-title` },
    el('h2', { id: `${id}-title` }, title), content);
  const redraw = () => content.replaceChildren(...[draw()].flat(Infinity).filter(Boolean));
  return { id, title, element, redraw };
}
