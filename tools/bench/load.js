// One step of `make bench`: requests to one address, in a closed loop of VUS clients, or in an open
// one of RATE requests a second, for SECONDS. Without a BODY it reads, with one it posts.

import http from 'k6/http';

const { URL, BODY, SECONDS, RATE, VUS } = __ENV;
const AS_JSON = { headers: { 'Content-Type': 'application/json' } };

const OPEN = {
  executor: 'constant-arrival-rate',
  rate: Number(RATE),
  timeUnit: '1s',
  duration: `${SECONDS}s`,
  // As in k6/create_orders.js.
  preAllocatedVUs: 200,
  maxVUs: 500,
};
const CLOSED = { executor: 'constant-vus', vus: Number(VUS), duration: `${SECONDS}s` };

export const options = {
  discardResponseBodies: true,
  scenarios: { load: RATE ? OPEN : CLOSED },
  summaryTrendStats: ['med', 'p(95)', 'p(99)'],
  // Named here so that it is in the summary.
  thresholds: { 'http_req_duration{expected_response:true}': [] },
};

http.setResponseCallback(http.expectedStatuses(200, 201));

export default BODY ? () => http.post(URL, BODY, AS_JSON) : () => http.get(URL);
