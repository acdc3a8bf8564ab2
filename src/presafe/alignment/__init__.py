"""Stage 3: LoRA on the next-token loss plus λ times the loss of the decision before the CoT.

loss      the losses of one step, as pure functions
head      the auxiliary linear head: attach, save
rows      alignment queries as token ids, labels, decision position and soft target
labels    the source of p′: the classifier, or its replacement in an ablation or a control
order     rows of near length within a forward pass, all kinds within a step
trainer   `PreSafeConfig`, `PreSafeTrainer`
export    a plain adapter, without a trace of the head
scale     the strength at which a trained adapter is applied
fit       one training from a recipe, resumable
"""
