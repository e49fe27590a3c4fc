-- Take one token from a bucket that all processes share.
--
-- KEYS[1]  the bucket
-- ARGV[1]  tokens per second
-- ARGV[2]  how many tokens the bucket holds at most
--
-- Returns 0 when a token was taken, else the milliseconds until the next one, by the server's
-- clock.

local key = KEYS[1]
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local state = redis.call('HMGET', key, 'tokens', 'at')
local tokens, at = tonumber(state[1]) or burst, tonumber(state[2]) or now_ms
if now_ms > at then
  tokens = math.min(burst, tokens + (now_ms - at) * rate / 1000)
end

local wait_ms = 0
if tokens >= 1 then
  tokens = tokens - 1
else
  wait_ms = math.ceil((1 - tokens) * 1000 / rate)
end
redis.call('HSET', key, 'tokens', string.format('%.4f', tokens), 'at', string.format('%.0f', now_ms))
redis.call('PEXPIRE', key, math.ceil(burst * 1000 / rate) + 1000)
return wait_ms
