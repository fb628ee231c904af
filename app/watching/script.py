"""The script of the page. Whatever comes from the run is put in as text, never as HTML."""

SCRIPT = r"""
'use strict';
const SVG = 'http://www.w3.org/2000/svg', MISSING = '–';
const shown = {version: -1, generation: -1, rounds: [], state: null};
const by = (id) => document.getElementById(id);
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}
function svg(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function number(value) {
  if (typeof value !== 'number') return MISSING;
  const digits = Math.abs(value) >= 10 ? 1 : 3;
  return value.toFixed(digits).replace('-', '−');
}
function size(bytes) {
  let value = bytes, unit = 'B';
  for (const larger of ['kB', 'MB', 'GB', 'TB']) if (value >= 999.95) { value /= 1000; unit = larger; }
  return `${unit === 'B' ? value : value.toFixed(1)} ${unit}`;
}
function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds)), two = (n) => String(n).padStart(2, '0');
  const minutes = Math.floor(whole / 60), hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${two(minutes % 60)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
const count = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`;
const sum = (key) => shown.rounds.reduce((total, line) => total + (line[key] || 0), 0);
function left(work) {
  if (!work || work.state !== 'running' || !work.ends) return '';
  return `about ${clock(work.ends - Date.now() / 1000)} left`;
}
function answered(work) {
  if (!work || work.state !== 'running' || !work.answered) return '';
  const {done, total, scope} = work.answered;
  return `${scope}: ${done} of ${count(total, 'client')} answered`;
}
const joined = (...texts) => texts.filter(Boolean).join('; ');
function rows(id, lines) { by(id).replaceChildren(...lines.map((cells) => el('tr', {}, ...cells))); }
const cell = (text, kind) => el('td', kind ? {class: kind} : {}, text);
const marked = (n) => cell(n, n ? 'num bad' : 'num');
const round_of = (n) => {
  const made = head(n);
  if (shown.state.kept && shown.state.kept.round === n) made.append(el('span', {class: 'kept'}, ' kept'));
  return made;
};
const head = (text) => el('th', {scope: 'row', class: 'text'}, text);

function steps(low, high) {
  const span = high - low || Math.abs(high) || 1, rough = span / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((n) => n * power >= rough) * power;
  const first = Math.floor(low / step), last = Math.max(Math.ceil(high / step), first + 1), found = [];
  for (let i = first; i <= last; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}
const curve = (key) => shown.rounds.map((line) => [line.round, line.figures[key]])
  .filter(([, value]) => typeof value === 'number');
function charts(state) {
  const drawn = [['headline-chart', state.headline], ['loss-chart', state.loss]];
  // All are shown before one is drawn, as each is as wide as the others leave it
  for (const [id, figure] of drawn) by(id).parentElement.hidden = curve(figure.key).length === 0;
  for (const [id, figure] of drawn) if (curve(figure.key).length) chart(id, curve(figure.key), figure.name);
}
function chart(id, points, name) {
  const place = by(id), holder = place.parentElement;
  const width = Math.max(holder.clientWidth, 240), height = 220;
  const edge = {left: 52, right: 14, top: 12, bottom: 26};
  const values = points.map(([, value]) => value), ys = steps(Math.min(...values), Math.max(...values));
  const planned = shown.state['rounds-planned'] || 0;
  const lastRound = Math.max(points[points.length - 1][0], planned, 2);
  const x = (n) => edge.left + (n - 1) / (lastRound - 1) * (width - edge.left - edge.right);
  const scale = (height - edge.top - edge.bottom) / (ys[ys.length - 1] - ys[0]);
  const y = (v) => height - edge.bottom - (v - ys[0]) * scale;
  const parts = [];
  for (const value of ys) {
    parts.push(svg('line', {x1: edge.left, x2: width - edge.right, y1: y(value), y2: y(value)}));
    const label = String(value).replace('-', '−');
    parts.push(svg('text', {x: edge.left - 6, y: y(value) + 4, 'text-anchor': 'end'}, label));
  }
  const stride = Math.max(1, Math.ceil((lastRound - 1) / Math.max(1, Math.floor((width - 80) / 60))));
  for (let n = 1; n <= lastRound; n += stride)
    parts.push(svg('text', {x: x(n), y: height - 6, 'text-anchor': 'middle'}, n));
  const kept = shown.state.kept && shown.state.kept.round;
  if (kept) {
    const ends = {x1: x(kept), x2: x(kept), y1: edge.top, y2: height - edge.bottom};
    const mark = svg('line', {class: 'kept', ...ends});
    mark.append(svg('title', {}, `round ${kept} is kept`));
    parts.push(mark);
  }
  parts.push(svg('polyline', {class: 'curve', points: points.map(([n, v]) => `${x(n)},${y(v)}`).join(' ')}));
  for (const [n, v] of points.length > 60 ? points.slice(-1) : points) {
    const dot = svg('circle', {cx: x(n), cy: y(v), r: 3});
    dot.append(svg('title', {}, `round ${n}: ${number(v)}`));
    parts.push(dot);
  }
  place.setAttribute('viewBox', `0 0 ${width} ${height}`);
  const last = `${name} by round; last: ${number(values[values.length - 1])}`;
  place.setAttribute('aria-label', joined(last, kept && `round ${kept} is kept`));
  place.replaceChildren(...parts);
  holder.querySelector('figcaption').textContent = `${name}, by round`;
}
const WORDS = {
  running: 'at work', finished: 'finished', interrupted: 'interrupted', failed: 'failed',
  unfinished: 'not finished', deleted: 'deleted',
};
function head_of(state) {
  const last = shown.rounds.length ? shown.rounds[shown.rounds.length - 1].round : 0;
  const training = state.training, all = state['rounds-planned'];
  by('state').textContent = WORDS[state.state] || state.state;
  by('state').className = `state ${state.state}`;
  const far = `round ${last} of ${all || MISSING}`;
  by('far').textContent = joined(far, state.strategy, left(training), answered(training));
  by('done').style.width = `${all ? Math.min(100, 100 * last / all) : 0}%`;
  document.title = `${last}/${all || MISSING} ${state.name} – Lethe`;
  const advice = {
    interrupted: `The run was interrupted. Go on with: lethe train --resume ${state.path}`,
    failed: `The run failed: ${state.reason}`,
    deleted: 'The folder of this run is gone.',
    unfinished: 'Nothing tells whether the run is at work: it was made before runs recorded that.',
  }[state.state];
  by('kept').hidden = !state.kept;
  by('kept').textContent = state.kept ? `${state.kept.said.join('. ')}.` : '';
  by('advice').hidden = !advice;
  by('advice').textContent = advice || '';
}
function figures_of(state) {
  const lines = shown.rounds, found = [];
  const last = (key) => {
    const line = lines.findLast((each) => typeof each.figures[key] === 'number');
    return line && line.figures[key];
  };
  if (state.headline.key) found.push([number(last(state.headline.key)), state.headline.name]);
  if (state.loss.key) found.push([number(last(state.loss.key)), state.loss.name]);
  if (lines.length) {
    const times = lines.slice(-5).map((line) => line.seconds || 0);
    found.push([number(times.reduce((a, b) => a + b, 0) / times.length), 'seconds per round, last 5']);
    found.push([size(sum('up')), 'from clients'], [size(sum('down')), 'to clients']);
    const latest = lines[lines.length - 1];
    found.push([`${latest.answered} of ${latest.asked}`, `clients answered in round ${latest.round}`]);
  }
  const item = ([value, what]) => el('li', {}, el('b', {}, value), el('span', {}, what));
  by('figures').replaceChildren(...found.map(item));
}
function works_of(state) {
  by('works').hidden = state.works.length === 0;
  rows('works-rows', state.works.map((work) => {
    const figures = Object.entries(work.values).slice(0, 3);
    const values = figures.map(([key, value]) => `${key} ${number(value)}`).join(', ');
    const steps = work.total ? `${work.done} of ${work.total}` : MISSING;
    const said = joined(work.title, answered(work), left(work), values, work.reason);
    const state = WORDS[work.state] || work.state;
    return [head(`${work.kind} ${work.name}`), cell(state), cell(steps, 'num'), cell(said, 'text')];
  }));
}
function clients_of(state) {
  const latest = state.latest;
  by('latest').hidden = !latest;
  if (latest) {
    by('latest-title').textContent = `Round ${latest.round}`;
    const more = latest['num-answered'] - latest.answered.length;
    by('who').textContent = joined(
      `answered: ${latest.answered.join(', ') || 'nobody'}${more > 0 ? ` and ${more} more` : ''}`,
      latest.silent.length ? `no answer that counts: ${latest.silent.join(', ')}` : '');
    by('faults').hidden = latest.faults.length === 0;
    rows('faults-rows', latest.faults.map(([client, scope, reason]) =>
      [head(client), cell(scope), cell(reason, 'text bad')]));
    by('more-faults').textContent = latest['more-faults'] ? `and ${latest['more-faults']} more` : '';
  }
  by('clients').hidden = state.clients.rows.length === 0;
  rows('clients-rows', state.clients.rows.map(([name, asked, replied, faults, what]) =>
    [head(name), cell(asked, 'num'), cell(replied, 'num'), marked(faults), cell(what, 'text')]));
  const more = state.clients.more;
  by('more-clients').textContent = more ? `and ${count(more, 'client')} more` : '';
}
function rest_of(state) {
  by('notes').hidden = state.notes.length === 0;
  by('notes-rows').replaceChildren(...state.notes.slice().reverse().map((note) => el('li', {}, note)));
  rows('rounds-rows', shown.rounds.slice(-200).reverse().map((line) => [
    round_of(line.round), cell(number(line.figures[state.headline.key]), 'num'),
    cell(number(line.figures[state.loss.key]), 'num'),
    cell(number(line.seconds), 'num'), cell(size(line.up), 'num'), cell(size(line.down), 'num'),
    cell(line.asked, 'num'), cell(line.answered, 'num'), marked(line.failed)]));
  by('rounds').hidden = shown.rounds.length === 0;
  by('rounds-headline').textContent = state.headline.name || 'figure';
}
function draw() {
  const state = shown.state;
  if (!state) return;
  head_of(state);
  figures_of(state);
  charts(state);
  works_of(state);
  clients_of(state);
  rest_of(state);
}
function take(answer) {
  if (answer.version === undefined) return false;
  shown.rounds.length = Math.min(shown.rounds.length, answer.first);
  shown.rounds.push(...answer.rounds);
  Object.assign(shown, {version: answer.version, generation: answer.generation, state: answer});
  return true;
}
async function look() {
  const {version, generation, rounds} = shown;
  try {
    const reply = await fetch(`/since?version=${version}&generation=${generation}&rounds=${rounds.length}`);
    const anew = take(await reply.json());
    if (anew) draw(); else if (shown.state) head_of(shown.state);
    by('lost').hidden = true;
  } catch (error) {
    by('lost').hidden = false;
  }
  setTimeout(look, EVERY);
}
const EVERY = 500;
take(JSON.parse(by('now').textContent));
draw();
addEventListener('resize', draw);
setTimeout(look, EVERY);
"""
