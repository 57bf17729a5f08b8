// What is in view: one observer for the whole page. What is out of view is not kept up to date by the second.

const callbacks = new Map(); // element -> Set of functions

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    for (const each of callbacks.get(target)?.values() ?? []) {
      if (each.was === isIntersecting) continue;
      each.was = isIntersecting;
      each.tell(isIntersecting);
    }
  }
}, { rootMargin: "120px 0px" });

// Have `tell(visible)` called when the element, or the part of a table or the row that it is in, comes into view or
// leaves it. Returns what ends that. What is in one share one observed element: each costs time in every frame.
export function onVisible(element, tell) {
  const target = element.closest("[data-part]") ?? element.closest("[data-row]") ?? element;
  const each = { tell, was: false };
  let all = callbacks.get(target);
  if (all === undefined) {
    all = new Set();
    callbacks.set(target, all);
    observer.observe(target);
  } else if ([...all].some((other) => other.was)) {
    // The observer tells of changes only: the newcomer learns from its neighbours what has been told.
    each.was = true;
    tell(true);
  }
  all.add(each);
  return () => {
    all.delete(each);
    if (all.size > 0 || callbacks.get(target) !== all) return;
    callbacks.delete(target);
    observer.unobserve(target);
  };
}
