// The page.

function head() {
  const targets = report.targets.map((target) => target.target).join(', ');
  return [
    el('h1', {}, report.model),
    el('p', {}, `${report.file} · ${bytes(report.file_bytes)} · ${targets} · compiled by ${report.compiler}`),
    el('p', { class: 'note' }, `BLAKE3 ${report.digest}`),
  ];
}

/** What the page looks at: the target, and the step that predictions are for. */
function controls(change) {
  const chooseTarget = (name) => {
    view.target = report.targets.find((target) => target.target === name);
    const { model } = view.target.plan;
    view.tokens = Math.min(view.tokens || model.prefill_chunk, model.prefill_chunk);
    view.cache = Math.min(view.cache || Math.max(Math.floor(model.max_context / 2), 1), model.max_context);
    view.colors = kindColors(view.target.plan);
  };
  chooseTarget(report.targets[0].target);
  const { model } = view.target.plan;
  const slider = (name, label, largest) => {
    const output = el('output', {}, integer(view[name]));
    const input = el('input', {
      type: 'range', min: 0, max: Math.log2(largest), step: 'any', value: Math.log2(view[name]), oninput: () => {
        view[name] = Math.min(Math.max(Math.round(2 ** Number(input.value)), 1), largest);
        output.textContent = integer(view[name]);
        input.setAttribute('aria-valuetext', output.textContent);
        change();
      },
    });
    return el('label', {}, label, input, output);
  };
  const choose = el('select', {
    id: 'target', onchange: () => { chooseTarget(choose.value); kernelState.open.clear(); kernelState.sort = null; change(); },
  }, report.targets.map((target) => el('option', { value: target.target }, target.target)));
  const predicted = report.targets.some((target) => target.plan.machine);
  const parts = [
    report.targets.length > 1 && el('label', {}, 'Target', choose),
    predicted && slider('tokens', 'Prefill tokens', model.prefill_chunk),
    predicted && slider('cache', 'KV cache length', model.max_context),
  ].filter(Boolean);
  return parts.length ? el('div', { class: 'controls' }, parts) : null;
}

function start() {
  byId('head').append(...head());
  const sections = [];
  let pending = false;
  const change = () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      sections.forEach((section) => section.redraw());
    });
  };
  if (report.targets.length === 0) {
    byId('content').append(el('p', { class: 'note' }, 'The artifact has no target.'));
    return;
  }
  const bar = controls(change);
  sections.push(
    section('overview', 'Overview', overview),
    section('memory', 'Memory over the schedule', memorySection),
    section('roofline', 'Roofline', rooflineSection),
    section('kernels', 'Kernels', kernelSection),
    section('launches', 'Launches', launchSection),
  );
  if (report.compilation) {
    sections.push(
      section('passes', 'Compilation', compilationSection),
      section('graph', 'The graph by phase', graphSection),
    );
  }
  byId('nav').append(el('ol', {}, sections.map(({ id, title }) => el('li', {}, el('a', { href: `#${id}` }, title)))));
  byId('content').append(...[bar].filter(Boolean), ...sections.map((section) => section.element));
  sections.forEach((section) => section.redraw());
  followSections(sections);
  document.documentElement.dataset.drawn = 'yes';
}

/** Marks the section in view in the navigation. */
function followSections(sections) {
  if (!('IntersectionObserver' in window)) return;
  const links = new Map([...byId('nav').querySelectorAll('a')].map((link) => [link.getAttribute('href').slice(1), link]));
  const observer = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    links.forEach((link) => link.removeAttribute('aria-current'));
    links.get(entry.target.id).setAttribute('aria-current', 'true');
  }), { rootMargin: '-20% 0px -70% 0px' });
  sections.forEach((section) => observer.observe(section.element));
}

try {
  start();
} catch (error) {
  showError(error);
}
