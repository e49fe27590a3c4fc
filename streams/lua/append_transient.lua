-- Append one transient entry to the window of one project.
--
-- KEYS[1]  the project's stream
-- ARGV[1]  idle expiry, in milliseconds
-- ARGV[2]  when it is published, unix time in microseconds
-- ARGV[3]  the log's head, used on an empty stream alone
-- ARGV[4]  seq and k of the newest entry the caller knows of: ids are not given out again after
-- ARGV[5]  the stream was lost
-- ARGV[6]  how many entries the stream may hold, messages included
-- ARGV[7]  name of the event
-- ARGV[8]  data, a JSON object without entryId
--
-- Returns the entry's id, 'n-k': n is the stream's own last message number, never one that it has
-- not reached (that would shut out the messages in between).
--
-- Above the bound a third of it goes, oldest transient entries first. Messages are never touched.

local key = KEYS[1]
local expiry_ms, at, head = ARGV[1], ARGV[2], ARGV[3]
local floor_seq, floor_k, bound = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local event, data = ARGV[7], ARGV[8]

local seq, k = head, 0
local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
if newest[1] then
  local s, n = string.match(newest[1][1], '^(%d+)-(%d+)$')
  seq, k = s, tonumber(n)
end
if seq == floor_seq and floor_k > k then
  k = floor_k
end
local id = string.format('%s-%.0f', seq, k + 1)
local rest = string.sub(data, 2)
if rest ~= '}' then
  rest = ',' .. rest
end
redis.call('XADD', key, id, 'event', event, 'data', '{"entryId":"' .. id .. '"' .. rest, 'at', at)

local excess = redis.call('XLEN', key) - bound
if excess > 0 then
  excess = excess + math.floor(bound / 3)
  for _, entry in ipairs(redis.call('XRANGE', key, '-', '(' .. id)) do
    if excess > 0 and string.sub(entry[1], -2) ~= '-0' then
      redis.call('XDEL', key, entry[1])
      excess = excess - 1
    end
  end
end
redis.call('PEXPIRE', key, expiry_ms)
return id
