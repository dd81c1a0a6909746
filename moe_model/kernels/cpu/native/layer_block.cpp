#include "layer_block.h"

#include <string.h>

#include "linear.h"
#include "row_maths.h"

namespace kernels {
namespace {

float eps(const LayerTable &layer)
{
    const uint32_t bits = (uint32_t)layer.eps_bits;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

bool multiply(const Isa &isa, int64_t format, int64_t weight, const void *rows, int64_t num_rows,
              int64_t num_inputs, int64_t num_outputs, void *out, bool out_is_f32)
{
    if (format >= NUM_FORMATS || !isa.formats[format])
        return false;
    return linear(isa, *isa.formats[format],
                  {(const uint8_t *)rows, num_rows, num_inputs, num_outputs,
                   (const uint8_t *)weight, out, out_is_f32});
}

}  // namespace

bool project(const Isa &isa, const LayerTable &layer, const ProjectArgs &args)
{
    const int64_t width = (layer.num_heads + 2 * layer.num_groups) * layer.head_dim;
    norm_rows(isa, {args.hidden, nullptr, false, (const uint16_t *)layer.input_norm, eps(layer),
                    args.num_rows, layer.hidden_size, nullptr, args.normed, nullptr});
    if (!multiply(isa, layer.qkv_format, layer.qkv, args.normed, args.num_rows, layer.hidden_size,
                  width, args.qkv, false))
        return false;
    split_heads(isa, {args.qkv, args.num_rows, width, (const uint16_t *)layer.q_norm,
                      (const uint16_t *)layer.k_norm, eps(layer), args.cos, args.sin, args.half,
                      layer.num_heads, layer.num_groups, layer.head_dim, args.q, args.k});
    return true;
}

bool dispatch(const Isa &isa, const LayerTable &layer, const DispatchArgs &args)
{
    if (!multiply(isa, layer.o_format, layer.o, args.attended, args.num_rows,
                  layer.num_heads * layer.head_dim, layer.hidden_size, args.projected, false))
        return false;
    norm_rows(isa,
              {args.hidden, args.projected, false, (const uint16_t *)layer.post_norm, eps(layer),
               args.num_rows, layer.hidden_size, args.residual, args.normed, args.wide});
    return multiply(isa, layer.routing_format, layer.routing, args.wide, args.num_rows,
                    layer.hidden_size, layer.num_experts, args.logits, true)
        && choose_experts(isa, {args.logits, (const float *)layer.bias, args.num_rows,
                                layer.num_experts, layer.top_k, args.ids, args.weights});
}

}  // namespace kernels
